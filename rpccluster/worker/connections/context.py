"""The data that all connections of a worker share: options, limits, clock and deadlines. Runs in the worker.

`rpccluster.worker.connections.table` handles many connections at once.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Callable, Protocol

from rpccluster.worker.limits import Limits
from rpccluster.worker.live_options import LiveOptions

__all__ = ["ConnectionContext", "Follower"]


class Follower(Protocol):
    """Follows the connections of a process; each is known by the origin of its calls, its outbox."""

    def note_adopted(self, outbox: Any, descriptor: int) -> None:
        """Note that a connection has come from another process; nothing of it has been read yet."""

    def note_given(self, outbox: Any, descriptor: int) -> None:
        """Note that a connection is about to go to another process, with its calls that begin anew there."""

    def note_half_closed(self, outbox: Any) -> None:
        """Note that the peer sends nothing more, and waits for its replies, or has gone."""

    def note_closed(self, outbox: Any) -> None:
        """Note that a connection has ended."""


class ConnectionContext:
    """The shared data of a worker's connections; made once in a worker.

    Its dicts hold times by connection, in seconds of ``clock``. If a limit changes, it holds for running times, too.
    """

    def __init__(self, options: LiveOptions, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self.options = options
        self.limits = limits
        self.clock = clock
        self.open: set[Any] = set()
        self.adopted: dict[int, Any] = {}  # those of `open` that have come from another worker, by their number
        self.partial: dict[Any, float] = {}  # since when it has an incomplete call
        self.unsent: dict[Any, float] = {}  # since when its peer has read nothing of its replies
        self.lingering: dict[Any, float] = {}  # until when a peer may read the end, or speak for the first time
        self.blamed: dict[Any, float] = {}  # until when it is not read, since workers have crashed at its calls
        self.on_count: Callable[[int], None] = lambda count: None  # told how many are open
        self.on_adopted: Callable[[float], None] = lambda seconds: None  # told how long a connection was on its way
        self.on_closed: Callable[[Any], object] = lambda connection: None  # told of one of `adopted` that has ended
        #: Told of a connection, the serial of a worker and a msgid: a call that runs there is to end, since its caller
        #: wants that, or (true) has gone.
        self.on_cancel: Callable[[Any, int, int, bool], object] = lambda connection, serial, msgid, is_gone: None
        self.number_for: Callable[[Any], int] = lambda sock: 0  # the number for an accepted socket; 0 for none
        #: Told of an accepted connection that is served from now on, and of which nothing was read yet.
        self.on_served: Callable[[Any], object] = lambda connection: None
        #: Told of one that is served once its handshake is over.
        self.on_admitted: Callable[[Any], object] = lambda connection: None
        #: Told the number of a connection that has ended, and of which the master has a copy.
        self.on_copy_ended: Callable[[int], object] | None = None
        self.follower: Follower | None = None

    @property
    def times(self) -> tuple[dict[Any, float], ...]:
        """Return all dicts of times."""
        return self.partial, self.unsent, self.lingering

    def add(self, connection: Any) -> None:
        """Add a connection of this worker."""
        self.open.add(connection)
        self.on_count(len(self.open))

    def note_time(self, times: dict[Any, float], connection: Any) -> None:
        """Put ``connection`` into one of ``times``, as of now."""
        times[connection] = self.clock()

    def forget(self, connection: Any) -> None:
        """Forget ``connection``, which has ended here."""
        self.open.discard(connection)
        self.adopted.pop(connection.number, None)
        for times in (*self.times, self.blamed):
            times.pop(connection, None)
        self.on_count(len(self.open))
