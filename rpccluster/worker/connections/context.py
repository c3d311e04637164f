"""What all connections of a worker share: the loop, the decoder, the engine, the limits, the deadlines.

Runs in the worker. What is done to many connections at once is in `rpccluster.worker.connections.table`.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Any, Callable

from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.shared import SharedDecoder
from rpccluster.worker.hot.engine import Engine
from rpccluster.worker.limits import Limits

__all__ = ["RECEIVE_MORE_BYTES", "ConnectionContext", "ConnectionOptions"]

RECEIVE_MORE_BYTES = 262_144  # while a long string arrives


@dataclass(frozen=True)
class ConnectionOptions:
    """The options that bound one connection; sizes in bytes, times in seconds, 0 for none."""

    max_pending_calls: int
    idle_timeout: float
    message_timeout: float
    write_timeout: float


class ConnectionContext:
    """Made once in a worker; its dicts and sets hold connections."""

    def __init__(
        self,
        loop: Any,
        engine: Engine,
        options: ConnectionOptions,
        bounds: Bounds,
        limits: Limits,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """``clock`` tells the monotonic seconds that deadlines are counted in."""
        self.loop = loop
        self.engine = engine
        self.options = options
        self.limits = limits
        self.clock = clock
        self.decoder = SharedDecoder(bounds)
        self.room = memoryview(bytearray(RECEIVE_MORE_BYTES))
        self.open: set[Any] = set()
        self.partial: dict[Any, float] = {}  # deadline of the incomplete message
        self.unsent: dict[Any, float] = {}  # deadline of the unread replies
        self.lingering: dict[Any, float] = {}
        self.dropped_replies = 0
        self.on_count: Callable[[int], None] = lambda count: None  # told how many are open
        self.on_closed: Callable[[Any], object] = lambda connection: None
        self.awaited_by: Callable[[Any], list[int]] = lambda connection: []  # msgids of calls that run elsewhere

    def forget(self, connection: Any) -> None:
        """``connection`` has ended here."""
        self.open.discard(connection)
        for waiting in (self.partial, self.unsent, self.lingering):
            waiting.pop(connection, None)
        self.on_count(len(self.open))
