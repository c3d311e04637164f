"""What all connections of a worker share: options, limits, clock and deadlines. Data; runs in the worker.

What is done to many connections at once is in `rpccluster.worker.connections.table`.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Any, Callable

from rpccluster.worker.limits import Limits

__all__ = ["ConnectionContext", "ConnectionOptions"]


@dataclass
class ConnectionOptions:
    """The options that bound one connection; times in seconds, 0 for none. Read whenever they are needed."""

    idle_timeout: float
    message_timeout: float
    write_timeout: float


class ConnectionContext:
    """Made once in a worker. Its dicts hold deadlines, by connection, in seconds of ``clock``."""

    def __init__(self, options: ConnectionOptions, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self.options = options
        self.limits = limits
        self.clock = clock
        self.open: set[Any] = set()
        self.adopted: dict[int, Any] = {}  # those of `open` that have come from another worker, by their number
        self.partial: dict[Any, float] = {}  # of the incomplete call
        self.unsent: dict[Any, float] = {}  # of the unread replies
        self.lingering: dict[Any, float] = {}  # of a peer that was told the end, or may still speak
        self.on_count: Callable[[int], None] = lambda count: None  # told how many are open
        self.on_closed: Callable[[Any], object] = lambda connection: None

    @property
    def deadlines(self) -> tuple[dict[Any, float], ...]:
        """All of them."""
        return self.partial, self.unsent, self.lingering

    def add(self, connection: Any) -> None:
        """``connection`` is one of the worker's."""
        self.open.add(connection)
        self.on_count(len(self.open))

    def forget(self, connection: Any) -> None:
        """``connection`` has ended here."""
        self.open.discard(connection)
        self.adopted.pop(connection.number, None)
        for deadlines in self.deadlines:
            deadlines.pop(connection, None)
        self.on_count(len(self.open))
