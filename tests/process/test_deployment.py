"""New versions of the package, of the service and of the folder they stand in come while a cluster runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rpccluster
from rpccluster.testing import RunningCluster, is_alive, title_of, wait_until

PACKAGE = Path(rpccluster.__file__).parent


def test_workers_boot_with_the_masters_code_until_an_upgrade(make_cluster):
    """The package is replaced on disk by a version whose parts do not fit this one's; then the workers die."""
    running: RunningCluster = make_cluster(number_workers=3)
    package = running.folder / "rpccluster"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    running.start()
    before = running.worker_pids()
    for file in package.rglob("*.py"):
        file.write_text("raise ImportError('half a version')\n")
    for pid in before:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not is_alive(pid))
        running.wait_ready()
    assert len(set(running.worker_pids()) - set(before)) == 3
    assert running.log_text().count("The code of rpccluster on disk has changed") == 1
    with running.client() as client:
        assert client.call("sum", 1, 2) == 3
    running.signal(signal.SIGUSR2)
    running.wait_log("Upgrade failed, nothing has changed")
    shutil.rmtree(package)
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "version.py").write_text('__version__ = "99.0"\n')
    assert running.run("upgrade").returncode == 0
    assert running.wait_ready()["master"]["version"] == "99.0"


TELLS = """
import os, sys

class Tells:
    def release(self):
        return {release!r}

    def folder(self):
        return os.environ["PWD"], sys.path[0], os.path.samefile(os.environ["PWD"], ".")

    def flags(self):
        return sys.flags.optimize, sys.warnoptions, sorted(sys._xoptions)
"""


@pytest.fixture
def begin(make_cluster) -> Iterator[Callable[..., RunningCluster]]:
    """Starts a cluster in a folder of the test's choice, whose name is in $PWD; no PYTHONPATH leads to it."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(running: RunningCluster, folder: Path, *command: str) -> RunningCluster:
        environment = {**os.environ, "PWD": str(folder)}
        environment.pop("PYTHONPATH", None)
        with open(running.log, "ab") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        started.append(process)
        running.wait_ready()
        return running

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def test_nothing_of_the_start_folder_runs_in_a_master(make_cluster, begin, tmp_path):
    """Neither at the start nor after an upgrade; and the interpreter's flags are the same then."""
    running = make_cluster(service="tells:Tells", number_workers=1)
    folder, mark = tmp_path / "folder", tmp_path / "mark"
    folder.mkdir()
    (folder / "tells.py").write_text(TELLS.format(release="only"))
    (folder / "calendar.py").write_text(f"open({str(mark)!r}, 'w').close()\nfrom datetime import *\n")
    flags = ["-O", "-Wignore::UserWarning", "-Xno_debug_ranges"]
    begin(running, folder, sys.executable, *flags, "-m", "rpccluster", "-c", str(running.config))
    before = running.client().call("flags")
    old = running.master_pid
    assert running.run("upgrade").returncode == 0
    wait_until(lambda: not is_alive(old))
    assert running.client().call("flags") == before
    assert "ignore::UserWarning" in before[1]
    assert not mark.exists()


def test_a_release_behind_a_symlink_is_followed(make_cluster, begin, tmp_path):
    """The start folder is what $PWD calls it: HUP and USR2 find the release that is there by then, whole."""
    running = make_cluster(service="tells:Tells", number_workers=1)
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tells.py").write_text(TELLS.format(release=name))
        shutil.copy(running.config, tmp_path / name / "a.ini")
        with open(tmp_path / name / "a.ini", "a") as file:
            file.write(f"proc_name = {name}\n")
    current = tmp_path / "current"

    def deploy(name: str) -> None:
        current.unlink(missing_ok=True)
        current.symlink_to(name)

    deploy("one")
    begin(running, current, sys.executable, "-m", "rpccluster", "-c", "a.ini")
    with running.client() as client:
        assert client.call("folder") == [str(current), str(current), True]
        for name, command in (("two", "reload --all"), ("three", "upgrade"), ("one", "upgrade")):
            former = current.resolve()
            deploy(name)
            if name != "one":
                former.rename(tmp_path / f"{former.name} that was")
            else:
                (tmp_path / "one that was").rename(tmp_path / "one")
            done = running.run(*command.split())
            assert done.returncode == 0, done.stderr
            running.wait_ready()
            assert client.call("release") == name
            assert client.call("folder") == [str(current), str(current), True]
            assert title_of(running.master_pid) == f"rpccluster: master [{name}]"


def test_a_start_folder_that_is_gone_is_needed_by_nobody(make_cluster, begin, tmp_path):
    """With absolute paths: new workers, an upgrade, a reload."""
    running = make_cluster(number_workers=1)
    folder = tmp_path / "folder"
    folder.mkdir()
    begin(running, folder, sys.executable, "-m", "rpccluster", "-c", str(running.config))
    folder.rmdir()
    (pid,) = running.worker_pids()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: running.worker_pids() not in ([], [pid]))
    for command in ("reload --all", "upgrade", "reload --all", "upgrade"):
        done = running.run(*command.split())
        assert done.returncode == 0, done.stderr
        running.wait_ready()
    assert running.client().call("sum", 1, 2) == 3
