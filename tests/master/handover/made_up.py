"""Workers and connections that do not exist, for tests of what is decided about them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from rpccluster.ipc.messages import Give
from rpccluster.master.children.child import ChildState
from rpccluster.master.handover.transit import Transit

__all__ = ["MadeUpWorker", "booting", "ready", "retiring", "transit"]

_numbers = itertools.count(1)


@dataclass(eq=False)
class MadeUpWorker:
    """All that is asked of a worker, as plain values; it has no channels."""

    state: ChildState
    connection_count: int = 0
    limit: int = 1000
    given: int = 0
    is_killed: bool = False
    is_questioned: bool = False
    is_overwhelmed: bool = False
    silent_seconds: float = 0.0
    slot: int = 0
    pid: int = 0
    serial: int = field(default_factory=lambda: next(_numbers))
    channel: Any = None
    connections: Any = None
    far_end: Any = None

    @property
    def is_ready(self) -> bool:
        return self.state is ChildState.READY and not self.is_killed and not self.is_questioned

    def is_full(self, now: float) -> bool:
        return self.is_overwhelmed

    @property
    def load(self) -> int:
        return self.connection_count + self.given

    @property
    def room(self) -> int:
        return max(0, self.limit - self.load)


def ready(connection_count: int = 0, **values: Any) -> MadeUpWorker:
    """A worker that serves."""
    return MadeUpWorker(ChildState.READY, connection_count, **values)


def retiring(connection_count: int = 0, **values: Any) -> MadeUpWorker:
    """A worker that is to end."""
    return MadeUpWorker(ChildState.RETIRING, connection_count, **values)


def booting(**values: Any) -> MadeUpWorker:
    """A worker that does not serve yet."""
    return MadeUpWorker(ChildState.BOOTING, **values)


def transit(adopter: MadeUpWorker | None = None, sent_at: float = 0.0, size: int = 0) -> Transit:
    """A connection in transit; it was sent to ``adopter`` if there is one."""
    made = Transit(Give(next(_numbers), [], False, bytes(size), b"", []), [], 0.0)
    if adopter is not None:
        made.place(adopter, sent_at)
    return made
