"""A plain peer of a keeper, over one connection that nothing replaces, and how to find the keeper of a cluster."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgpack

from rpccluster.testing import RunningCluster, wait_until

__all__ = ["Failed", "Peer", "address", "keeper", "peer"]


class Failed(Exception):
    """The error of a reply."""


class Peer:
    """One connection that speaks MessagePack-RPC, and can leave calls unanswered."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30.0)
        self.socket.connect(path)
        self._unpacker = msgpack.Unpacker()
        self._replies: dict[int, list[Any]] = {}
        self._numbers = itertools.count(1)

    def begin(self, method: str, *params: Any) -> int:
        """Send a call. Returns its number."""
        number = next(self._numbers)
        self.socket.sendall(msgpack.packb([0, number, method, params]))
        return number

    def end(self, number: int, seconds: float = 30.0) -> Any:
        """Return the answer of a call. Raises `Failed` for an error."""
        self.socket.settimeout(seconds)
        while number not in self._replies:
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the keeper has closed the connection")
            self._unpacker.feed(data)
            for _, answered, error, result in self._unpacker:
                self._replies[answered] = [error, result]
        error, result = self._replies.pop(number)
        if error is not None:
            raise Failed(error)
        return result

    def call(self, method: str, *params: Any) -> Any:
        """Call, and return the answer."""
        return self.end(self.begin(method, *params))

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def keeper(cluster: RunningCluster, *others: int) -> int:
    """Wait for the pid of the keeper, which is ready and none of ``others``."""

    def ready() -> int:
        processes = cluster.group("queues").get("processes", [])
        found = [each["pid"] for each in processes if each["state"] == "ready"]
        return found[0] if found and found[0] not in others else 0

    return wait_until(ready)


def address(cluster: RunningCluster) -> str:
    """The address of the keeper's own socket."""
    found: str = cluster.group("queues")["listeners"][0]
    return found


@contextlib.contextmanager
def peer(cluster: RunningCluster) -> Iterator[Peer]:
    """A connection to the keeper."""
    made = Peer(address(cluster).partition("://")[2])
    try:
        yield made
    finally:
        made.close()


def until_waiting(made: Peer, queue: str, number: int) -> None:
    """Wait until so many gets wait in the keeper."""
    until = time.monotonic() + 30.0
    while made.call("queue.stats", queue)["waiting"] != number:
        assert time.monotonic() < until
