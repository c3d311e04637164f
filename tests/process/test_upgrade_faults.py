"""Upgrades that go wrong half-way, or are disturbed: somebody serves at any time, and no connection is lost."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from pathlib import Path

import psutil
import pytest
from holding import gate, let_go

from rpccluster.errors import RemoteError
from rpccluster.testing import RunningCluster, call_once, is_alive, wait_until

# Ends the new master in the moment in which it has said that its workers serve.
DIES_AFTER_SERVING = """
import os, signal, socket

send = socket.socket.sendmsg

def sendmsg(self, data, *rest):
    sent = send(self, data, *rest)
    if bytes(data[0][:2]) in (b"\\x92\\x06", b"\\x93\\x06"):
        os.kill(os.getpid(), signal.SIGKILL)
    return sent

socket.socket.sendmsg = sendmsg
"""


def test_a_new_master_that_dies_before_it_has_taken_over_changes_nothing(cluster):
    """The commit needs both: the old master serves on, old connections and new ones."""
    running: RunningCluster = cluster()
    before = running.status()
    with running.client() as client:
        assert client.call("sum", 1, 2) == 3
        running.write_module("sitecustomize", DIES_AFTER_SERVING)
        running.signal(signal.SIGUSR2)
        running.wait_log("Upgrade failed, nothing has changed")
        (running.folder / "sitecustomize.py").unlink()
        after = running.wait_ready()
        assert after["master"]["pid"] == before["master"]["pid"]
        assert [worker["pid"] for worker in after["workers"]] == [worker["pid"] for worker in before["workers"]]
        assert (running.folder / "cluster.pid").read_text() == f"{before['master']['pid']}\n"
        assert client.call("sum", 1, 2) == 3
        with running.client() as another:
            assert another.call("sum", 1, 2) == 3
        assert running.run("upgrade").returncode == 0
        wait_until(lambda: not is_alive(before["master"]["pid"]))
        assert client.call("sum", 1, 2) == 3


def _is_locked(pidfile: Path) -> bool:
    with open(pidfile) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _move(running: RunningCluster, folder: Path) -> None:
    """Name other paths in the configuration, and keep the TCP address."""
    folder.mkdir()
    running.write_config(
        bind=f"{running.address}, unix://{folder}/also.sock",
        unix_socket=folder / "service.sock",
        pidfile=folder / "cluster.pid",
        control_socket=folder / "control.sock",
    )


def test_paths_that_an_upgrade_changes_are_given_up_whole(make_cluster):
    """pidfile, control socket and Unix addresses: the new master has its own, of the old ones nothing is left."""
    running: RunningCluster = make_cluster()
    running.write_config(unix_socket=running.folder / "service.sock")
    running.start()
    old, former, new = running.master_pid, running.folder, running.folder / "moved"
    with running.client() as client:
        _move(running, new)
        os.kill(old, signal.SIGUSR2)
        wait_until(lambda: not is_alive(old))
        assert client.call("sum", 1, 2) == 3
    status = running.wait_ready()["master"]
    assert status["listeners"][1:] == [f"unix://{new}/also.sock", f"unix://{new}/service.sock"]
    assert (new / "cluster.pid").read_text() == f"{status['pid']}\n"
    assert (former / "cluster.pid").read_text() == ""
    assert not _is_locked(former / "cluster.pid")
    assert not (former / "service.sock").exists()
    assert not (former / "control.sock").exists()
    assert running.run("stop").returncode == 0
    assert running.left_behind() == []


def test_an_upgrade_that_fails_leaves_nothing_at_its_new_paths(make_cluster):
    """And the old master has all that it had."""
    running: RunningCluster = make_cluster()
    running.write_config(unix_socket=running.folder / "service.sock")
    running.start()
    old, former, new = running.master_pid, dict(running.options), running.folder / "moved"
    _move(running, new)
    running.write_config(service="rpccluster.demo:Nothing")
    os.kill(old, signal.SIGUSR2)
    running.wait_log("Upgrade failed, nothing has changed")
    wait_until(lambda: [path for path in new.iterdir() if path.is_socket()] == [])
    wait_until(lambda: (new / "cluster.pid").read_text() == "")
    running.write_config(**former)
    assert running.status()["master"]["pid"] == old
    assert _is_locked(running.folder / "cluster.pid")
    for address in running.status()["master"]["listeners"]:
        assert call_once(address, "sum", 1, 2) == 3


class Holders:
    """Threads with one call each, which runs while things happen, until it is let go; what became of them."""

    def __init__(self, running: RunningCluster, number: int) -> None:
        self._running = running
        self._address = running.address
        self._outcomes: list[object] = []
        self._threads = [threading.Thread(target=self._call) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        try:
            self._outcomes.append(call_once(self._address, "hold", gate(self._running), seconds=120))
        except Exception as error:
            self._outcomes.append(error)

    def outcomes(self) -> list[object]:
        let_go(self._running)
        for thread in self._threads:
            thread.join()
        return self._outcomes


def _await_calls(running: RunningCluster, number: int) -> None:
    wait_until(lambda: sum(worker["active_calls"] for worker in running.status()["workers"]) == number)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGWINCH])
def test_a_stop_of_both_masters_answers_every_call(held, signum):
    """Connections and replies that are on their way from one to the other: all are answered, then all is over."""
    running: RunningCluster = held(graceful_timeout=60)
    holders = Holders(running, 20)
    _await_calls(running, 20)
    old = running.master_pid
    os.kill(old, signal.SIGUSR2)
    running.wait_log("has taken over")
    pidfile = running.folder / "cluster.pid"
    new = int(wait_until(lambda: (text := pidfile.read_text()) != f"{old}\n" and text))
    for pid in (old, new):
        os.kill(pid, signum)
    assert holders.outcomes() == ["let go"] * 20
    wait_until(lambda: not is_alive(old))
    if signum == signal.SIGTERM:
        wait_until(lambda: not is_alive(new))
    else:
        drained = wait_until(lambda: (found := running.status()) and not found["workers"] and found)
        assert drained["master"]["state"] == "drained"


def test_what_is_asked_of_a_master_that_leaves_is_done_by_the_other(held):
    """Signals and commands, from USR2 on until its end; what cannot be passed on is refused aloud."""
    running: RunningCluster = held(number_workers=1, graceful_timeout=120)
    old = running.master_pid
    with running.control() as control:
        assert control.call("status")["master"]["pid"] == old
        holders = Holders(running, 2)  # the old master lives as long as they are held
        _await_calls(running, 2)
        before = psutil.Process(old).children()
        os.kill(old, signal.SIGUSR2)
        new = wait_until(lambda: next((each for each in psutil.Process(old).children() if each not in before), None))
        new.suspend()
        assert running.run("scale", "2").returncode == 0
        new.resume()
        running.wait_log("has taken over")
        assert running.wait_ready(number_workers=2)["master"]["pid"] == new.pid
        with pytest.raises(RemoteError, match=rf"the new master \(pid: {new.pid}\) has taken over: ask that one"):
            control.call("scale", 5)
        os.kill(old, signal.SIGTTIN)
        running.wait_ready(number_workers=3)
        os.kill(old, signal.SIGTERM)
        assert holders.outcomes() == ["let go"] * 2
    wait_until(lambda: not is_alive(new.pid))
    wait_until(lambda: running.left_behind() == [])
