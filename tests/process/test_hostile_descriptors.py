"""Too few descriptors, and connections that come and go by the thousand: the service goes on, nothing leaks."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

import msgpack
import pytest

from rpccluster import Client
from rpccluster.system import resident_bytes
from rpccluster.testing import RunningCluster, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
SERVICE = """
import os

class Files:
    def __init__(self):
        self.held = []

    def pid(self):
        return os.getpid()

    def sum(self, *numbers):
        return sum(numbers)

    def take(self):
        try:
            while True:
                self.held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            return error.errno

    def give_back(self):
        while self.held:
            os.close(self.held.pop())
"""
CYCLES = 10_000 if FULL_SCALE else 1_000
MOST_GROWTH = 4 << 20  # of a worker's memory, beyond what the first half of the cycles brought
CALL = msgpack.packb([0, 1, "sum", [1, 2]])
REPLY = msgpack.packb([1, 1, None, 3])


class Limited(RunningCluster):
    """A cluster whose processes may have 64 descriptors each."""

    def command(self, *arguments: str) -> list[str]:
        return ["sh", "-c", 'ulimit -n 64; exec "$0" "$@"', *super().command(*arguments)]


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Limited]:
    """Two workers."""
    running = Limited(tmp_path, {"service": "files:Files"})
    running.write_module("files", SERVICE)
    yield running.start()
    running.stop()


def ticks(running: RunningCluster) -> float:
    """CPU seconds that master and workers have used."""
    pids = [running.master_pid, *running.worker_pids()]
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def assert_idle(running: RunningCluster, seconds: float = 2.0) -> None:
    """Below 5 % of a CPU each, whatever waits to be accepted."""
    before = ticks(running)
    time.sleep(seconds)  # what is used while nothing happens can only be seen by waiting
    used = ticks(running) - before
    assert used < 0.05 * seconds * (1 + len(running.worker_pids())), used


def open_callers(address: str, count: int) -> list[socket.socket]:
    """Connections that have asked for a sum."""
    host, _, port = address.partition("//")[2].rpartition(":")
    callers = []
    for _ in range(count):
        callers.append(socket.create_connection((host, int(port)), timeout=60))
        with contextlib.suppress(ConnectionError):  # refused at once
            callers[-1].send(CALL)
    return callers


def answered(callers: list[socket.socket]) -> list[socket.socket]:
    """Those that have their reply by now; it stays unread."""
    ready = wait(callers, 0)
    assert all(caller.recv(100, socket.MSG_PEEK) == REPLY for caller in ready)
    return ready


def test_two_hundred_callers_and_few_descriptors(limited: Limited) -> None:
    """Those that find no room wait in the backlog, at no cost; as others go their turn comes, and all are answered."""
    waiting = open_callers(limited.address, 200)
    wait_until(lambda: len(answered(waiting)) >= 2 * 16)
    assert_idle(limited)
    status = limited.status()
    assert sum(worker["limits"]["worker_connections"] for worker in status["workers"]) >= 1
    assert sum(worker["limits"]["descriptors"] for worker in status["workers"]) == 0
    deadline = time.monotonic() + 60
    while waiting:
        assert time.monotonic() < deadline, f"{len(waiting)} are still waiting"
        for caller in answered(waiting):
            waiting.remove(caller)
            caller.close()
    assert limited.log_text().count("Leaving connections waiting") <= (4 if FULL_SCALE else 40)
    with limited.client() as client:
        assert client.call("sum", 1, 2) == 3


def test_a_service_that_takes_all_descriptors(limited: Limited) -> None:
    """New callers are refused, with one line in the log; those that are there are served on; then all is well."""
    pids = limited.worker_pids()
    address = limited.address
    clients = [limited.client_of(pid) for pid in pids]
    wait_until(lambda: [worker["connections"] for worker in limited.status()["workers"]] == [1, 1])
    for client in clients:
        assert client.call("take") == 24  # EMFILE
    refused = open_callers(address, 20)

    def all_refused() -> bool:
        ready = wait(refused, 0)
        with contextlib.suppress(ConnectionResetError):
            assert all(caller.recv(1) == b"" for caller in ready)
        return len(ready) == len(refused)

    wait_until(all_refused, 30)
    more = open_callers(address, 5)
    assert_idle(limited)
    wait_until(lambda: sum(worker["limits"]["descriptors"] for worker in limited.status()["workers"]) >= 20)
    assert 1 <= limited.log_text().count("Too many open files") <= (4 if FULL_SCALE else 15)
    limited.wait_log("Refusing the connection of tcp://127.0.0.1:")
    for client in clients:
        assert client.call("sum", 1, 2) == 3
        client.call("give_back")
    with Client(address, timeout=30) as client:
        assert client.call("sum", 3, 4) == 7
    assert limited.worker_pids() == pids
    for sock in (*refused, *more):
        sock.close()
    for client in clients:
        client.close()


# -- connections that come and go


def footprint(running: RunningCluster) -> tuple[list[int], list[int]]:
    """Descriptors and resident bytes of the master and its workers."""
    pids = [running.master_pid, *running.worker_pids()]
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids], [resident_bytes(pid) for pid in pids]


def connect(address: str) -> socket.socket:
    """One more connection."""
    host, _, port = address.partition("//")[2].rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def say_nothing(sock: socket.socket) -> None:
    """Connect and go."""


def say_half(sock: socket.socket) -> None:
    """Go in the middle of a message."""
    sock.send(CALL[:-1])


def half_close(sock: socket.socket) -> None:
    """End-of-file with an incomplete message; then it goes."""
    sock.send(CALL[:3])
    sock.shutdown(socket.SHUT_WR)


def call_and_go(sock: socket.socket) -> None:
    """Go without waiting for the reply."""
    sock.send(CALL)


def reset(sock: socket.socket) -> None:
    """Go with a reset."""
    sock.send(CALL * 10)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("leave", [say_nothing, say_half, half_close, call_and_go, reset])
def test_connections_that_come_and_go_leave_nothing(
    cluster: Callable[..., RunningCluster], leave: Callable[[socket.socket], None]
) -> None:
    """Descriptors are as before, memory does not grow with their number."""
    running = cluster()
    address = running.address
    descriptors, _ = footprint(running)

    def cycle(times: int) -> list[int]:
        for _ in range(times):
            with connect(address) as sock:
                leave(sock)
        wait_until(lambda: sum(worker["connections"] for worker in running.status()["workers"]) == 0, 60)
        wait_until(lambda: footprint(running)[0] <= descriptors)
        return footprint(running)[1]

    before = cycle(CYCLES // 2)
    after = cycle(CYCLES // 2)
    assert all(late - early < MOST_GROWTH for early, late in zip(before, after)), (before, after)


def test_half_open_connections_end_at_their_deadline(cluster: Callable[..., RunningCluster]) -> None:
    """Peers that have gone without a word, or never end a message: closed at ``message_timeout`` and ``idle_timeout``,
    while the others are served; descriptors and memory are as before."""
    at_once = min(CYCLES // 2, 4_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    running = cluster(message_timeout=2, idle_timeout=3)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, at_once + 500)), hard))
    address = running.address
    descriptors, _ = footprint(running)

    def round_of(count: int) -> list[int]:
        half_open = [connect(address) for _ in range(count)]
        for sock in half_open[::2]:
            sock.send(CALL[:-1])
        with running.client() as client:
            assert client.call("sum", 1, 2) == 3
            wait_until(lambda: sum(worker["connections"] for worker in running.status()["workers"]) <= 1, 60)
        wait_until(lambda: footprint(running)[0] <= descriptors)
        for sock in half_open:
            sock.close()
        return footprint(running)[1]

    try:
        before = round_of(at_once)
        for _ in range(CYCLES // at_once):
            after = round_of(at_once)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(late - early < MOST_GROWTH for early, late in zip(before, after)), (before, after)
    limits = [worker["limits"] for worker in running.status()["workers"]]
    assert sum(each["message_timeout"] for each in limits) >= CYCLES // 2
    assert sum(each["idle_timeout"] for each in limits) >= CYCLES // 2
    assert 1 <= running.log_text().count("message_timeout passed") <= 30
