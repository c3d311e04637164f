"""Promise 4: peers who send a byte now and then, or never read, are closed at their deadlines and hold up nobody.

Neither the others nor a reload. ``pytest -rP`` shows the figures.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from typing import Any

import msgpack
from bystander import MIB, GoodClient, Memory
from lines import lines_to

from rpccluster.address import parse_address
from rpccluster.testing import RunningCluster, wait_until
from rpccluster.worker.hot import HIGH_WATER_BYTES

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
DRIPPERS, BYTE_EVERY_SECONDS, MESSAGE_TIMEOUT = (500, 10.0, 30) if FULL_SCALE else (60, 0.4, 2)
CALLS, WRITE_TIMEOUT = (100_000, 10) if FULL_SCALE else (20_000, 6)
DEAF = 10
REPLY_BYTES = 65_536
LATE_SECONDS = 30.0  # a busy machine; the deadlines are looked at twice a second
RELOAD_SECONDS = 60.0
KIB = 1024

SERVICE = """
class Large:
    def echo(self, value):
        return value

    def large(self, size):
        return b"x" * size
"""


class Drippers:
    """Connections that send a call byte by byte; ``closed_at`` are the seconds from the beginning when each was."""

    def __init__(self, address: str) -> None:
        target: Any = parse_address(address)
        self._data = msgpack.packb([0, 1, "echo", ["x" * 1000]])
        self._sockets = [socket.create_connection((target.host, target.port), 10) for _ in range(DRIPPERS)]
        self._began = self._dripped_at = time.monotonic()
        self._dripped = 0
        self.closed_at: list[float] = []
        self._open = selectors.DefaultSelector()
        for sock in self._sockets:
            sock.setblocking(False)
            self._open.register(sock, selectors.EVENT_READ)

    @property
    def seconds(self) -> float:
        """Since the first byte."""
        return time.monotonic() - self._began

    def go_on(self) -> bool:
        """Send the next byte if it is time, and look who was closed. Whether all were."""
        if time.monotonic() >= self._dripped_at:
            self._dripped_at += BYTE_EVERY_SECONDS
            self._dripped += 1
            for key in self._open.get_map().values():
                with contextlib.suppress(OSError):
                    key.fileobj.send(self._data[self._dripped - 1 : self._dripped])  # type: ignore[union-attr]
        for key, _ in self._open.select(0.01):
            self._open.unregister(key.fileobj)
            self.closed_at.append(self.seconds)
        return len(self.closed_at) == DRIPPERS

    def close(self) -> None:
        """End them all."""
        self._open.close()
        for sock in self._sockets:
            sock.close()


def reload_timed(running: RunningCluster) -> float:
    """The seconds until each worker has a successor and is gone."""
    began = time.monotonic()
    assert running.run("reload", "--all", seconds=RELOAD_SECONDS).returncode == 0
    running.wait_ready(RELOAD_SECONDS)
    return time.monotonic() - began


def count(running: RunningCluster, limit: str) -> int:
    """How often workers have reached it, also those that have gone."""
    number: int = running.status()["master"]["totals"]["limits"][limit]
    return number


def test_who_sends_a_byte_now_and_then_is_closed_in_time(cluster) -> None:
    """At message_timeout, however regularly the bytes come; each takes up little memory meanwhile."""
    running = cluster(message_timeout=MESSAGE_TIMEOUT)
    memory = Memory(running.worker_pids())
    with GoodClient(running.address) as good, contextlib.closing(Drippers(running.address)) as drippers:
        before = sum(memory.now())
        wait_until(lambda: drippers.go_on() or drippers.seconds > MESSAGE_TIMEOUT / 2, MESSAGE_TIMEOUT)
        each = (sum(memory.now()) - before) / DRIPPERS
        assert drippers.closed_at == [] or drippers.seconds >= MESSAGE_TIMEOUT
        wait_until(drippers.go_on, MESSAGE_TIMEOUT + LATE_SECONDS, "all are closed")
        print(f"{DRIPPERS} closed after {min(drippers.closed_at):.2f} to {max(drippers.closed_at):.2f} s")
        print(f"{each / KIB:.1f} KiB each; {good.figures()}")
    assert min(drippers.closed_at) >= MESSAGE_TIMEOUT - 0.1
    assert each < 32 * KIB
    wait_until(lambda: count(running, "message_timeout") == DRIPPERS)


def test_who_sends_a_byte_now_and_then_holds_no_reload_up(cluster) -> None:
    """They move with what they have sent, and are closed by whoever has them then."""
    running = cluster(message_timeout=MESSAGE_TIMEOUT)
    with GoodClient(running.address) as good, contextlib.closing(Drippers(running.address)) as drippers:
        wait_until(lambda: drippers.go_on() or drippers.seconds > MESSAGE_TIMEOUT / 4, MESSAGE_TIMEOUT)
        seconds = reload_timed(running)
        wait_until(drippers.go_on, MESSAGE_TIMEOUT + LATE_SECONDS, "all are closed")
        print(f"the reload took {seconds:.2f} s; closed until {max(drippers.closed_at):.2f} s; {good.figures()}")


def test_who_never_reads_takes_up_little_and_is_closed_in_time(make_cluster) -> None:
    """Ten that pipeline calls with large replies: the worker's memory stays bounded, write_timeout ends them.

    A reload meanwhile takes them along, and is not held up.
    """
    running = make_cluster(service="large:Large", number_workers=1, write_timeout=WRITE_TIMEOUT)
    running.write_module("large", SERVICE)
    running.start()
    memory = Memory(running.worker_pids())
    with running.client() as client:
        client.call("large", 16 * REPLY_BYTES)
    calls = msgpack.packb([0, 1, "large", [REPLY_BYTES]]) * CALLS
    with GoodClient(running.address) as good, lines_to(running.address, DEAF) as lines:
        wait_until(lambda: good.calls > 200 or good.fault)
        undisturbed, before = good.figures(), sum(memory.now())
        with memory.watched():
            unsent = send_what_is_taken([line.sock for line in lines], calls)
            wait_until(lambda: count(running, "unread_replies") >= DEAF, what="nobody is read any more")
            each = (memory.highest - before) / DEAF
            print(f"{DEAF} of {CALLS} calls, of which the kernel took all but {max(unsent)} bytes")
            print(f"{each / MIB:.2f} MiB each")
            print(f"undisturbed {undisturbed}\nmeanwhile   {good.figures()}")
            assert each < 2 * HIGH_WATER_BYTES  # while it grows it is copied
        print(f"the reload took {reload_timed(running):.2f} s; {good.figures()}")
        began = time.monotonic()
        wait_until(lambda: count(running, "write_timeout") == DEAF, WRITE_TIMEOUT + LATE_SECONDS, "all are closed")
        print(f"closed {time.monotonic() - began:.2f} s after it; {good.figures()}")


def send_what_is_taken(sockets: list[socket.socket], data: bytes) -> list[int]:
    """Send on each until nothing is taken for a second; the bytes that are left of each."""
    left = {sock: memoryview(data) for sock in sockets}
    with selectors.DefaultSelector() as selector:
        for sock in sockets:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_WRITE)
        while True:
            ready = selector.select(1.0)
            if not ready:
                return [len(rest) for rest in left.values()]
            for key, _ in ready:
                sock = key.fileobj  # type: ignore[assignment]
                is_closed = False
                try:
                    left[sock] = left[sock][sock.send(left[sock]) :]
                except BlockingIOError:
                    pass
                except OSError:  # this has taken so long that its time was over
                    is_closed = True
                if is_closed or not left[sock]:
                    selector.unregister(sock)
