"""What moving connections needs of a worker. A protocol: this room knows no kind of process. Runs in the master."""

from __future__ import annotations

from typing import Protocol

from rpccluster.ipc.channel import Channel
from rpccluster.master.children.child import ChildState

__all__ = ["Worker"]


class Worker(Protocol):
    """A process that serves connections, as its master sees it."""

    given: int  # connections that were sent to it, and neither taken back nor refused; kept by this room

    @property
    def pid(self) -> int: ...

    @property
    def slot(self) -> int: ...

    @property
    def serial(self) -> int:
        """No other worker, of this master or an earlier one, has it."""

    @property
    def state(self) -> ChildState: ...

    @property
    def is_ready(self) -> bool:
        """Whether it serves and is to go on doing so."""

    @property
    def is_killed(self) -> bool: ...

    @property
    def silent_seconds(self) -> float:
        """For so long it has shown no sign of life."""

    def is_full(self, now: float) -> bool:
        """Whether what it adopted would not be read."""

    @property
    def connection_count(self) -> int:
        """Connections it serves now."""

    @property
    def load(self) -> int:
        """Connections it serves or that are on their way to it."""

    @property
    def room(self) -> int:
        """Connections it could serve beyond those."""

    @property
    def channel(self) -> Channel:
        """On which it is asked for connections."""

    @property
    def connections(self) -> Channel:
        """On which connections travel."""

    @property
    def far_end(self) -> Channel:
        """The worker's end of ``connections``: what it has not read can be read back."""
