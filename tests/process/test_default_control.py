"""Clusters whose configuration names no control socket: how commands find them, and what becomes of the socket."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster.testing import RunningCluster, is_alive, wait_until


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder whose path is so short that a socket's path in it is short enough, too."""
    with tempfile.TemporaryDirectory(prefix="rpc-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def start(make_cluster, tmp_path, monkeypatch):
    """Starts clusters without `control_socket`; they share a folder for default ones."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("TMPDIR", str(runtime))
    started: list[RunningCluster] = []

    def start(*arguments: str, **options: object) -> RunningCluster:
        started.append(make_cluster(control_socket=None, number_workers=1, **options))
        started[-1].start(*arguments, are_ready=False)
        started[-1].wait_log("ready")
        return started[-1]

    yield start
    for each in started:  # an upgraded master is known by its pidfile alone
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((each.folder / "cluster.pid").read_text()), signal.SIGKILL)


def sockets(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "run" / "rpccluster").glob("*.sock"))


def without_file(made: RunningCluster, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command without ``-c``."""
    command = [word for word in made.command(*words) if word not in ("-c", str(made.config))]
    return subprocess.run(
        command, cwd=made.folder, env=made._environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_two_clusters_side_by_side(start, tmp_path):
    """Each is found by its file or its socket; without both, several are listed, and the only one is taken."""
    one, other = start("--name", "one"), start("--name", "other")
    paths = sockets(tmp_path)
    assert [path.name.partition("-")[0] for path in paths] == ["one", "other"]
    told = one.run("status")
    assert (told.returncode, told.stderr) == (0, "")
    master = told.stdout.split(":")[0]
    assert without_file(other, "--control", str(paths[0]), "status").stdout.startswith(f"{master}:")
    assert without_file(other, "status", f"--config={one.config}").stdout.startswith(f"{master}:")
    several = without_file(one, "status")
    assert (several.returncode, several.stdout) == (2, "")
    first, *listed = several.stderr.splitlines()
    assert first == "rpccluster: found 2 clusters, expected one; name it by -c FILE or --control PATH"
    assert listed[0].startswith(f"rpccluster: {paths[0]}: {master}, listening at tcp://127.0.0.1:")
    assert len(listed) == 2
    assert one.run("stop").returncode == 0
    assert sockets(tmp_path) == paths[1:]
    assert without_file(one, "stop").returncode == 0
    assert sockets(tmp_path) == []
    none = without_file(one, "status")
    assert (none.returncode, "no master answers" in none.stderr) == (3, True)


def test_a_second_cluster_of_one_file_has_none(start, tmp_path):
    """The first one keeps it, the second serves without, and says so."""
    first = start(pidfile=None)
    second = RunningCluster(first.folder, first.options)
    second.log = tmp_path / "second.log"
    try:
        second.start(are_ready=False)
        second.wait_log("No control socket: cannot open")
        second.wait_log("ready")
        assert f"master {first._process.pid}:" in first.run("status").stdout
    finally:
        second.stop()
    assert len(sockets(tmp_path)) == 1


def test_it_comes_back_and_goes_with_its_master(start, tmp_path):
    """When somebody removes its folder, which is made for this user alone again; a killed master blocks no start."""
    running = start()
    (path,) = sockets(tmp_path)
    path.unlink()
    path.parent.rmdir()
    wait_until(lambda: sockets(tmp_path) == [path], what="the socket is back")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    os.kill(running._process.pid, signal.SIGKILL)
    running.wait()
    assert path.exists()
    assert running.run("status").returncode == 3
    running.log.unlink()
    running.start(are_ready=False)
    running.wait_log("ready")
    assert running.run("stop").returncode == 0
    assert not path.exists()


def test_an_upgrade_keeps_it_unless_the_name_changes(start, tmp_path):
    """The new master has the same socket; after another name it has another, and nothing is left of the old one."""
    running = start()
    (path,) = sockets(tmp_path)
    first = running._process.pid
    done = running.run("upgrade")
    assert (done.returncode, done.stderr) == (0, "")
    wait_until(lambda: not is_alive(first), what="the old master has gone")
    assert sockets(tmp_path) == [path]
    running.write_config(proc_name="renamed")
    assert running.run("reload", "--all").returncode == 0
    assert sockets(tmp_path) == [path]
    second = int(done.stdout.split()[1])
    assert running.run("upgrade").returncode == 0
    wait_until(lambda: not is_alive(second), what="the second master has gone")
    (renamed,) = sockets(tmp_path)
    assert renamed.name == path.name.replace("rpccluster", "renamed")
    assert running.run("stop").returncode == 0
    assert sockets(tmp_path) == []
