"""Callers that notice everything: they number every call, keep several in flight, and check every reply.

One thread for all of them; each call is written in two pieces now and then, so that handovers meet torn messages.
"""

from __future__ import annotations

import random
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import msgpack

__all__ = ["Callers", "dial"]


def dial(address: str, seconds: float = 10.0) -> socket.socket:
    """Connect to ``address``, of TCP or a Unix socket."""
    kind, _, place = address.partition("://")
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(seconds)
        sock.connect(place)
        return sock
    host, _, port = place.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # torn calls do not wait for ACKs
    return sock


@dataclass(eq=False)
class _Caller:
    sock: socket.socket
    unpacker: Any = field(default_factory=msgpack.Unpacker)
    pending: dict[int, tuple[float, Any]] = field(default_factory=dict)
    unsent: bytes = b""


class Callers:
    """Ten persistent connections, say, each with ``depth`` calls of ``method(number)`` in flight.

    ``expected(number)`` is the result each call must have. Anything unexpected ends up in ``faults``.
    """

    def __init__(
        self,
        address: str,
        connections: int = 10,
        depth: int = 4,
        pause: float = 0.0,
        seed: int = 1,
        method: str = "note",
    ) -> None:
        """``pause`` is the time in seconds between two rounds of sending; 0 for as fast as it goes."""
        self._random = random.Random(seed)
        self._depth = depth
        self._method = method
        self._pause = pause
        self._number = 0
        self.answered = 0
        self.latencies: list[tuple[float, float]] = []  # when, and how long
        self.faults: list[str] = []
        self._stopping = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._callers = [_Caller(dial(address)) for _ in range(connections)]
        for caller in self._callers:
            caller.sock.setblocking(False)
            self._selector.register(caller.sock, selectors.EVENT_READ, caller)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, seconds: float = 30.0) -> None:
        """Send nothing more, wait for what is due, and note what never came."""
        self._stopping.set()
        self._thread.join(seconds + 5)
        for caller in self._callers:
            if caller.pending:
                self.faults.append(f"{len(caller.pending)} calls without an answer")
            caller.sock.close()

    def _run(self) -> None:
        give_up_at = None
        while True:
            stopping = self._stopping.is_set()
            if stopping:
                give_up_at = give_up_at or time.monotonic() + 30
                if not any(c.pending for c in self._callers) or time.monotonic() > give_up_at:
                    return
            for caller in self._callers:
                if not stopping:
                    self._fill(caller)
                self._push(caller)
            for key, _ in self._selector.select(self._pause or 0.001):
                self._pull(key.data)
            if self._pause:
                self._stopping.wait(self._pause)

    def _fill(self, caller: _Caller) -> None:
        while len(caller.pending) < self._depth:
            self._number += 1
            number = self._number
            caller.pending[number % 2**32] = (time.monotonic(), number)
            caller.unsent += msgpack.packb([0, number, self._method, [number]])

    def _push(self, caller: _Caller) -> None:
        if not caller.unsent:
            return
        size = len(caller.unsent)
        if self._random.random() < 0.3:
            size = self._random.randrange(1, size + 1)
        try:
            sent = caller.sock.send(caller.unsent[:size])
            caller.unsent = caller.unsent[sent:]
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose(caller, error)

    def _pull(self, caller: _Caller) -> None:
        try:
            data = caller.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(caller, error)
            return
        if not data:
            self._lose(caller, "end-of-file")
            return
        caller.unpacker.feed(data)
        for kind, msgid, error, result in caller.unpacker:
            self._check(caller, kind, msgid, error, result)

    def _check(self, caller: _Caller, kind: Any, msgid: Any, error: Any, result: Any) -> None:
        began = caller.pending.pop(msgid, None)
        if kind != 1 or error is not None or began is None or result != began[1]:
            self.faults.append(f"call {msgid}: {error!r}, {result!r}, expected {began!r}")
        else:
            self.answered += 1
            now = time.monotonic()
            self.latencies.append((now, now - began[0]))

    def _lose(self, caller: _Caller, why: object) -> None:
        self.faults.append(f"lost a connection with {len(caller.pending)} calls: {why}")
        caller.pending.clear()
        caller.unsent = b""
        self._selector.unregister(caller.sock)
