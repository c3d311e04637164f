"""A hostile speaker of the control socket, who passes its permissions, can neither stop nor stall the master."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import msgpack
import pytest

from rpccluster.master.control.server import MOST_CLIENTS
from rpccluster.system import resident_bytes
from rpccluster.testing import RunningCluster, is_alive, wait_until

MIB = 1 << 20
MOST_GROWTH = 24 * MIB  # of the master, whatever they send
GENEROUS_SECONDS = 10.0

Start = Callable[..., RunningCluster]


class Attackers:
    """Connections to a control socket that are kept, with what they have yet to send."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open = ExitStack()
        self._unsent: list[tuple[socket.socket, memoryview]] = []

    def add(self, data: bytes = b"") -> socket.socket:
        """One more that sends ``data`` as fast as it is taken, and reads nothing."""
        sock = self._open.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(self._path)
        sock.setblocking(False)
        self._unsent.append((sock, memoryview(data)))
        return sock

    def press_on(self) -> None:
        """Send what is taken now."""
        left = []
        for sock, data in self._unsent:
            try:
                left.append((sock, data[sock.send(data) :]))
            except BlockingIOError:
                left.append((sock, data))
            except OSError:  # it was closed
                continue
        self._unsent = [(sock, data) for sock, data in left if data]

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def running(cluster: Start) -> RunningCluster:
    """Two workers."""
    return cluster()


@pytest.fixture
def attackers(running: RunningCluster) -> Iterator[Attackers]:
    """Closed at the end."""
    made = Attackers(str(running.options["control_socket"]))
    yield made
    made.close()


def assert_undisturbed(running: RunningCluster, attackers: Attackers, seconds: float = 2.0) -> None:
    """For so long the master answers, the service serves, and the master does not grow."""
    master = running.master_pid
    before = resident_bytes(master)
    ends_at = time.monotonic() + seconds
    with running.client() as client:
        while time.monotonic() < ends_at:
            attackers.press_on()
            began = time.monotonic()
            assert running.status()["master"]["pid"] == master
            assert client.call("sum", 1, 2) == 3
            assert time.monotonic() - began < GENEROUS_SECONDS
            assert resident_bytes(master) - before < MOST_GROWTH


REQUEST = msgpack.packb([0, 1, "status", []])
HOSTILE = {
    "garbage": os.urandom(100_000),
    "no messages": b"\xc0" * 100_000,
    "nested 100,000 deep": b"\x91" * 100_000,
    "nested beginnings of long arrays": b"\xdc\xff\xff" * 500,
    "nested beginnings of shorter arrays": b"\xdc\x0f\xff" * 1_300,
    "a million long arrays": b"\xdd\xff\xff\xff\xff" * 1_000_000,
    "a string of 4 GiB": b"\x94\x00\x01\xdb\xff\xff\xff\xff" + bytes(1_000_000),
    "a message that never ends": b"\x94\x00\x01\xa4stop\xdc\xff\xff" + b"\x01" * 60_000,
    "a million tiny messages": b"\x93\x02\xa0\x90" * 1_000_000,
    "a million calls, no reply read": b"\x94\x00\x01\xa1x\x90" * 1_000_000,
    "a million calls for the status": REQUEST * 1_000_000,
    "half a message": REQUEST[:-1],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bytes_harm_nobody_else(running: RunningCluster, attackers: Attackers, kind: str) -> None:
    """From as many connections as there may be at once but one."""
    for _ in range(MOST_CLIENTS - 1):
        attackers.add(HOSTILE[kind])
    assert_undisturbed(running, attackers)
    assert "Traceback" not in running.log_text()


def test_five_hundred_connections_keep_nobody_out(running: RunningCluster, attackers: Attackers) -> None:
    """The most silent ones go for those that come; descriptors are not used up."""
    master = running.master_pid
    for _ in range(500):
        attackers.add()
    assert_undisturbed(running, attackers)
    assert len(os.listdir(f"/proc/{master}/fd")) < 2 * MOST_CLIENTS


def test_whoever_asks_and_goes_leaves_nothing(running: RunningCluster, attackers: Attackers) -> None:
    """Thousands that ask for something long, half-close or go without a word."""
    master = running.master_pid
    descriptors = len(os.listdir(f"/proc/{master}/fd"))
    for number in range(1000):
        sock = attackers.add()
        sock.send(msgpack.packb([0, 1, "reload", []]) if number % 100 == 0 else REQUEST)
        if number % 2:
            sock.shutdown(socket.SHUT_WR)
        sock.close()
    assert_undisturbed(running, attackers)
    running.wait_ready()
    wait_until(lambda: len(os.listdir(f"/proc/{master}/fd")) <= descriptors + 4)


def test_commands_and_signals_work_meanwhile(running: RunningCluster, attackers: Attackers) -> None:
    """Scaling, a reload and a stop, while others flood it."""
    for kind in ("a million tiny messages", "a million calls, no reply read", "a million calls for the status"):
        for _ in range(10):
            attackers.add(HOSTILE[kind])
    attackers.press_on()
    assert running.run("scale", "3", seconds=120).returncode == 0
    attackers.press_on()
    assert running.run("reload", "--all", seconds=120).returncode == 0
    attackers.press_on()
    master = running.master_pid
    os.kill(master, signal.SIGTERM)
    assert running.wait(30) == 0
    assert not is_alive(master)
