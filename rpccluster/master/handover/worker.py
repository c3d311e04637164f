"""The worker as this folder needs it: a protocol, since the folder knows no kind of process. Runs in the master."""

from __future__ import annotations

from typing import Protocol

from rpccluster.ipc.channel import Channel
from rpccluster.ledger.layout import Shape
from rpccluster.master.children.child import ChildState

__all__ = ["LedgerOf", "Worker"]


class LedgerOf(Protocol):
    """The ledger of one worker."""

    @property
    def shape(self) -> Shape: ...

    def read(self, place: int, length: int) -> bytes:
        """Return bytes of the file. Raises OSError."""


class Worker(Protocol):
    """A process that serves connections, as its master sees it."""

    given: int  # connections that were sent to it, and neither taken back nor refused; this folder counts them

    @property
    def pid(self) -> int: ...

    @property
    def slot(self) -> int: ...

    @property
    def serial(self) -> int:
        """The number that no other worker has, of this master or an earlier one."""

    @property
    def state(self) -> ChildState: ...

    @property
    def is_ready(self) -> bool:
        """Whether it serves, and shall go on."""

    @property
    def is_killed(self) -> bool: ...

    @property
    def silent_seconds(self) -> float:
        """Seconds since its last heartbeat."""

    def is_full(self, now: float) -> bool:
        """Return whether it would not read a connection that it adopted."""

    @property
    def connection_count(self) -> int:
        """Number of connections that it serves now."""

    @property
    def load(self) -> int:
        """Number of connections that it serves or that are on their way to it."""

    @property
    def room(self) -> int:
        """Number of connections that it could serve beyond its load."""

    @property
    def channel(self) -> Channel:
        """The channel on which the master asks it for connections."""

    @property
    def connections(self) -> Channel:
        """The channel on which connections travel."""

    @property
    def has_crashed(self) -> bool:
        """Whether it has ended by a fault of its own process, such as a segmentation fault."""

    def where_it_hangs(self) -> str:
        """Return the name of the method that it has begun last, or what else it was at."""

    @property
    def ledger(self) -> LedgerOf | None:
        """What it notes of its connections, which outlive it by that; None if they do not."""

    @property
    def why_uncovered(self) -> str:
        """Why none of its connections outlives it, of `rpccluster.ledger.why`; empty if that depends on each."""

    @property
    def copies(self) -> Channel | None:
        """The channel on which it sends copies of its sockets, if it has a ledger; nobody watches that."""

    @property
    def far_end(self) -> Channel:
        """The worker's end of ``connections``, from which the master reads back unread messages."""
