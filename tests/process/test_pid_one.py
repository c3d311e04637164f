"""The master as pid 1 of a namespace, as in a container: it reaps what is not its own, and obeys its signals.

Pids that the cluster tells are those of its namespace; what is signalled and looked at here are the outer ones.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster import Client
from rpccluster.errors import RPCClusterError
from rpccluster.testing import RunningCluster, title_of, wait_until

UNSHARE = ["unshare", "-pf", "--mount-proc", "--kill-child"]
SERVICE = """
import os, subprocess

class It:
    def pid(self):
        return os.getpid()

    def leave_orphan(self, until):
        subprocess.run(["sh", "-c", "(while [ ! -e $0 ]; do sleep 0.02; done) >/dev/null 2>&1 &", until])
"""


class Contained:
    """A cluster whose master is pid 1; asked through its sockets, which are files outside and inside."""

    def __init__(self, made: RunningCluster) -> None:
        self.made = made
        with open(made.log, "wb") as log:
            environment = dict(os.environ, PYTHONPATH=str(made.folder))
            command = [*UNSHARE, *made.command()]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.wait_ready(2)
        (self.master,) = children(self.process.pid)

    def status(self) -> dict:
        with Client(f"unix://{self.made.folder}/control.sock", timeout=30) as control:
            return control.call("status")

    def wait_ready(self, number_workers: int, generation: int = 1) -> None:
        """Wait until so many workers of that generation serve, and no other worker is left."""

        def is_so() -> bool:
            assert self.process.poll() is None, self.made.log_text()
            try:
                workers = self.status()["workers"]
            except RPCClusterError:
                return False
            found = [(worker["state"], worker["generation"]) for worker in workers]
            return found == [("ready", generation)] * number_workers

        wait_until(is_so, 60)


@pytest.fixture
def contained(make_cluster) -> Iterator[Contained]:
    """A running one; the namespace ends with it."""
    if subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("unshare -pf --mount-proc is not permitted here")
    made = make_cluster(service="it:It", number_workers=2, pidfile=None, bind="unix://%(here)s/it.sock")
    made.config.write_text(made.config.read_text().replace("%%(here)s", "%(here)s"))
    (made.folder / "it.py").write_text(SERVICE)
    running = Contained(made)
    yield running
    running.process.kill()  # --kill-child: pid 1 goes with it, and with pid 1 the namespace
    running.process.wait()


def children(pid: int) -> list[int]:
    """All children of a process, zombies included, by their outer pids."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_orphans_of_a_service_leave_no_zombie(contained):
    """A grandchild that a service's child left behind becomes the master's child, and is reaped by it silently."""
    assert contained.status()["master"]["pid"] == 1
    warden, *workers = before = children(contained.master)
    assert len(workers) == 2
    wait_until(lambda: title_of(warden) == "rpccluster: warden [rpccluster]")
    until = contained.made.folder / "until"
    with Client(f"unix://{contained.made.folder}/it.sock") as client:
        client.call("leave_orphan", str(until))
    wait_until(lambda: len(children(contained.master)) == 4)
    until.touch()
    wait_until(lambda: children(contained.master) == before)
    assert "died" not in contained.made.log_text()


def test_signals_are_obeyed(contained):
    """TTIN adds a worker, HUP replaces all, TERM ends it with exit code 0."""
    os.kill(contained.master, signal.SIGTTIN)
    contained.wait_ready(3)
    os.kill(contained.master, signal.SIGHUP)
    contained.wait_ready(2, generation=2)
    os.kill(contained.master, signal.SIGTERM)
    assert contained.process.wait(60) == 0


def test_an_upgrade_is_refused(contained):
    """USR2 would end pid 1 and the container with it: a log line says so, and the cluster goes on."""
    os.kill(contained.master, signal.SIGUSR2)
    contained.made.wait_log("Upgrade refused: a master that is pid 1")
    done = contained.made.run("upgrade")
    assert (done.returncode, "pid 1" in done.stderr) == (1, True)
    assert contained.status()["master"]["generation"] == 1
    with Client(f"unix://{contained.made.folder}/it.sock") as client:
        assert client.call("pid") > 1
