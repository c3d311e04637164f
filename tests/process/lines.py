"""One raw connection of a client, byte by byte: what is sent when, and every reply that comes."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgpack

from rpccluster.address import Address, TCPAddress, parse_address

__all__ = ["Line", "lines_to", "notification", "request"]


def request(msgid: int, method: str, *params: Any) -> bytes:
    """The bytes of a call."""
    data: bytes = msgpack.packb([0, msgid, method, params])
    return data


def notification(method: str, *params: Any) -> bytes:
    """The bytes of a call that nobody is told of."""
    data: bytes = msgpack.packb([2, method, params])
    return data


class Line:
    """A connection. ``replies`` are all that have come, as (msgid, error, result)."""

    def __init__(self, address: str, *, receive_buffer: int = 0, seconds: float = 20.0) -> None:
        self.sock, peer = _socket_for(parse_address(address))
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(seconds)
        self.sock.connect(peer)
        self.replies: list[tuple[int, Any, Any]] = []
        self.is_at_end = False
        self._unpacker = msgpack.Unpacker(max_buffer_size=1 << 30)
        self._msgids = itertools.count(1_000_000)

    def send(self, data: bytes) -> None:
        """All of ``data``."""
        self.sock.sendall(data)

    def receive(self) -> None:
        """What comes next. Raises TimeoutError, and ConnectionResetError."""
        data = self.sock.recv(1 << 18)
        self.is_at_end = not data
        self._unpacker.feed(data)
        for kind, msgid, error, result in self._unpacker:
            assert kind == 1, kind
            self.replies.append((msgid, error, result))

    def peek(self, size: int) -> None:
        """Read at least ``size`` bytes, and leave the others where they are."""
        taken = 0
        while taken < size:
            data = self.sock.recv(min(size - taken, 1 << 16))
            taken += len(data)
            self._unpacker.feed(data)

    def wait(self, count: int) -> list[tuple[int, Any, Any]]:
        """The first ``count`` replies."""
        while len(self.replies) < count:
            self.receive()
            assert not self.is_at_end, f"the end after {len(self.replies)} replies, expected {count}"
        return self.replies[:count]

    def wait_for(self, msgid: int) -> tuple[Any, Any]:
        """Error and result of the call of that msgid, which no other call has."""
        looked = 0
        while True:
            for found, error, result in self.replies[looked:]:
                if found == msgid:
                    return error, result
            looked = len(self.replies)
            self.receive()
            assert not self.is_at_end, f"the end, expected a reply to {msgid}"

    def call(self, method: str, *params: Any, ahead: bytes = b"") -> Any:
        """The result of a call; ``ahead`` are bytes of the next ones, which are sent, and so read, with it."""
        msgid = next(self._msgids)
        self.send(request(msgid, method, *params) + ahead)
        error, result = self.wait_for(msgid)
        assert error is None, error
        return result

    def timed_call(self, method: str, *params: Any) -> tuple[float, Any]:
        """How many seconds a call took, and its result."""
        began = time.monotonic()
        result = self.call(method, *params)
        return time.monotonic() - began, result

    def assert_end(self) -> None:
        """Nothing more comes but the end."""
        before = len(self.replies)
        while not self.is_at_end:
            self.receive()
        assert len(self.replies) == before

    def counts(self) -> Counter[tuple[int, Any, Any]]:
        """How often each reply came."""
        return Counter(self.replies)

    def close(self) -> None:
        """End it."""
        self.sock.close()


def _socket_for(address: Address) -> tuple[socket.socket, Any]:
    """A socket of the address's family, and what to connect it to."""
    if isinstance(address, TCPAddress):
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return socket.socket(family), (address.host, address.port)
    return socket.socket(socket.AF_UNIX), address.path


@contextlib.contextmanager
def lines_to(address: str, count: int) -> Iterator[list[Line]]:
    """So many connections, closed at the end."""
    lines: list[Line] = []
    try:
        for _ in range(count):
            lines.append(Line(address))
        yield lines
    finally:
        for line in lines:
            line.close()
