"""The calls that wait in the keeper: gets for an item, puts for room, joins for the last item; each a small record.

First come, first served: calls of a queue stand in the order in which they came. A repeat of a call, by its session and
number, takes the place of the first. Deadlines stand in one heap. Pure; runs in the keeper.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from rpccluster.service import Later

__all__ = ["NEVER", "Call", "Due", "Waiting"]

NEVER = float("inf")
_STALE = 1000  # entries of the heap whose calls wait no more, beyond as many as do


class Call:
    """A call that may wait: for ``queue``, until ``ends_at`` (monotonic seconds), to run ``verb`` again."""

    __slots__ = ("connection", "encode", "ends_at", "is_asked", "is_given_up", "later", "params", "queue", "verb")

    def __init__(self, queue: str, verb: Any, later: Later, ends_at: float, connection: Any = None) -> None:
        self.queue = queue
        self.verb = verb
        self.later = later
        self.ends_at = ends_at
        self.connection = connection  # a `rpccluster.services.keeper.sessions.Bound`, to which it belongs
        self.params: list[Any] | None = None  # with which a put begins anew
        self.encode: Callable[[Any], Any] | None = None  # makes the answer of what its verb is answered with
        self.is_asked = False  # its verb runs
        self.is_given_up = False  # it was answered while its verb ran

    @property
    def key(self) -> bytes | None:
        """The session, by which a repeat of this call is known; None if it cannot be repeated."""
        return self.verb.session if self.verb is not None and self.verb.seq else None

    def __call__(self) -> None:
        """Wait no more, since the call is over without an answer of the keeper's."""
        self.connection.on_over(self)


class Due(NamedTuple):
    """When a call is over; ``number`` keeps two of one time in order."""

    at: float
    number: int
    call: Call


class Waiting:
    """The waiting calls of one form, by their queues."""

    def __init__(self) -> None:
        self._queues: dict[str, dict[Call, None]] = {}
        self._by_key: dict[bytes, Call] = {}  # the last one of each session
        self._due: list[Due] = []
        self._number = 0
        self.count = 0

    def add(self, call: Call) -> None:
        """Let ``call`` wait behind all others."""
        self._queues.setdefault(call.queue, {})[call] = None
        self.count += 1
        if call.key is not None:
            self._by_key[call.key] = call
        self.note_end(call)

    def twin(self, call: Call) -> Call | None:
        """Return the waiting call of which ``call`` is a repeat."""
        found = self._by_key.get(call.key) if call.key is not None else None
        return found if found is not None and found.verb.seq == call.verb.seq else None

    def note_end(self, call: Call) -> None:
        """Note when ``call`` is over, which waits."""
        if call.ends_at != NEVER:
            self._number += 1
            heapq.heappush(self._due, Due(call.ends_at, self._number, call))
            self._sweep()

    def _sweep(self) -> None:
        """Forget deadlines of calls that wait no more, when there are too many."""
        if len(self._due) > 2 * self.count + _STALE:
            self._due = [due for due in self._due if self.has(due.call)]
            heapq.heapify(self._due)

    def has(self, call: Call) -> bool:
        """Return whether ``call`` waits."""
        return call in self._queues.get(call.queue, ())

    def remove(self, call: Call) -> bool:
        """Let ``call`` wait no more. Returns whether it did."""
        calls = self._queues.get(call.queue, {})
        if call not in calls:
            return False
        del calls[call]
        self.count -= 1
        if not calls:
            del self._queues[call.queue]
        key = call.key
        if key is not None and self._by_key.get(key) is call:
            del self._by_key[key]
        return True

    def of(self, queue: str) -> Iterator[Call]:
        """Yield the calls of a queue, those first that came first."""
        return iter(self._queues.get(queue, ()))

    def number(self, queue: str) -> int:
        """Return how many calls wait for a queue."""
        return len(self._queues.get(queue, ()))

    def all(self) -> list[Call]:
        """Return all calls."""
        return [call for calls in self._queues.values() for call in calls]

    def over(self, now: float) -> list[Call]:
        """Return the calls whose time is over; they wait on until they are removed."""
        found = []
        while self._due and self._due[0].at <= now:
            call = heapq.heappop(self._due).call
            if self.has(call) and call.ends_at <= now:  # a repeat may have given it more time
                found.append(call)
        return found

    @property
    def wake_at(self) -> float:
        """When the first call may be over (monotonic seconds); infinity if none will be."""
        return self._due[0].at if self._due else NEVER
