"""New versions of the package, of the service and of the folder they stand in come while a cluster runs."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import rpccluster
from rpccluster.testing import RunningCluster, is_alive, wait_until

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
