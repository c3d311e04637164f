"""What all connections of a worker share: options, limits, clock and deadlines. Data; runs in the worker.

What is done to many connections at once is in `rpccluster.worker.connections.table`.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Callable

from rpccluster.worker.limits import Limits
from rpccluster.worker.live_options import LiveOptions

__all__ = ["ConnectionContext"]


class ConnectionContext:
    """Made once in a worker. Its dicts hold times by connection, in seconds of ``clock``; a limit that is set while
    they last holds for them, too."""

    def __init__(self, options: LiveOptions, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self.options = options
        self.limits = limits
        self.clock = clock
        self.open: set[Any] = set()
        self.adopted: dict[int, Any] = {}  # those of `open` that have come from another worker, by their number
        self.partial: dict[Any, float] = {}  # since when it has an incomplete call
        self.unsent: dict[Any, float] = {}  # since when its peer has read nothing of its replies
        self.lingering: dict[Any, float] = {}  # until when a peer may read the end, or speak for the first time
        self.on_count: Callable[[int], None] = lambda count: None  # told how many are open
        self.on_closed: Callable[[Any], object] = lambda connection: None

    @property
    def times(self) -> tuple[dict[Any, float], ...]:
        """All of these dicts."""
        return self.partial, self.unsent, self.lingering

    def add(self, connection: Any) -> None:
        """``connection`` is one of the worker's."""
        self.open.add(connection)
        self.on_count(len(self.open))

    def forget(self, connection: Any) -> None:
        """``connection`` has ended here."""
        self.open.discard(connection)
        self.adopted.pop(connection.number, None)
        for times in self.times:
            times.pop(connection, None)
        self.on_count(len(self.open))
