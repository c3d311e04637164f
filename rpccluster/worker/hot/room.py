"""The data that the parts of the hot room share: waiting calls, outboxes to flush, events for connections.

Runs in the worker. Calls wait in two queues, so that a client that sends little does not wait for all that send much.
The batch of one recv is light if it has at most `LIGHT_BYTES` and no other call of its connection waits; otherwise it
is long. At most one long batch stands in ``ready``, behind the light ones that were there. So a light call waits for at
most one long batch and one turn of the loop, however many connections send as much as they can; and each turn of the
loop serves part of a long batch. The calls of one connection begin in the order in which they came.

Where a service has methods in threads or on the asyncio loop, a call whose kind is full leaves its queue and is *held*,
so that calls of other kinds overtake it. Calls of one kind keep their order: held ones begin before all in the queues.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Container, Iterator
from copy import copy
from itertools import chain
from operator import length_hint
from typing import Any, Callable, Protocol

from rpccluster.errors import ProtocolError
from rpccluster.protocol.closing import msgids_of
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.shared import SharedDecoder
from rpccluster.worker.hot.control.terms import with_deadlines
from rpccluster.worker.tally import Silent

__all__ = ["NOBODY", "RECEIVE_MORE_BYTES", "Happened", "Listener", "Room", "is_used_up"]

RECEIVE_MORE_BYTES = 262_144  # while a long string arrives
MOST_HELD = 16  # calls of a connection that is read on although they are held back


class Happened(enum.Enum):
    """An event of the hot room for a connection."""

    __hash__ = object.__hash__  # an Enum's own takes longer than what follows from most of these

    # of its input
    PEER_ENDED = "the peer sends nothing more"
    BROKEN = "the socket cannot be read, or written, any more"
    UNDECODABLE = "what comes now is no MessagePack; an error that says so is queued behind the calls before it"
    INCOMPLETE = "the first bytes of a call have come, and not yet its last ones"
    COMPLETE = "no incomplete call is kept any more"
    HEARD_LAST = "after `receive_last`: something has come, and was taken in"
    # of its turn: reasons not to read it
    PENDING = "it has more than ``max_pending_calls`` unanswered calls"
    NO_GREENLET = "all greenlets are taken"
    OTHERS_TURN = "others that send much have their turn before it"
    ITS_TURN = "after NO_GREENLET or OTHERS_TURN: it may be read"
    HELD_BACK = "more than `MOST_HELD` of its calls, or a large one, are held back, since their kind is full"
    LET_GO = "after HELD_BACK: it may be read"
    # of its output
    ANSWERED = "while ``reports`` is set: some calls have ended, and their replies have left"
    UNSENT = "the kernel took only some of the replies, or took more of those that were left"
    SENT = "the kernel has taken all that was left"
    HIGH_WATER = "the peer leaves more than `HIGH_WATER_BYTES` of replies unread"
    LOW_WATER = "after HIGH_WATER: the peer has read most of them"


class Listener(Protocol):
    """Learns what has happened to the input and the output of one socket: a connection."""

    def handle(self, happened: Happened) -> None:
        """Handle an event."""

    def refuse(self, error: ProtocolError) -> None:
        """Handle input that is no call: nothing behind it is run."""

    def cancel(self, msgid: int) -> None:
        """Handle the peer's wish to end its calls with ``msgid``, as far as they run elsewhere."""


class _Nobody:
    """The `Listener` of a connection that has ended."""

    def handle(self, happened: Happened) -> None:
        """Do nothing."""

    def refuse(self, error: ProtocolError) -> None:
        """Do nothing."""

    def cancel(self, msgid: int) -> None:
        """Do nothing."""


NOBODY = _Nobody()

#: Calls that came together and were not looked at yet: the outbox that their replies go to, the calls, and when they
#: came, in monotonic seconds.
Batch = tuple[Any, Iterator[Any], float]


def is_used_up(calls: Iterator[Any]) -> bool:
    """Return whether no call of a batch is left."""
    return not length_hint(calls)


class Room:
    """The queues of a worker; its engine makes one.

    The inboxes ``add`` to the queues, the runners take from ``ready``, and the outboxes with replies to send are
    ``dirty``.
    """

    def __init__(self, loop: Any, bounds: Bounds, max_pending_calls: int) -> None:
        """``bounds`` hold for each message; ``max_pending_calls`` for each connection."""
        self.loop = loop
        self.decoder = SharedDecoder(bounds)
        self.buffer = memoryview(bytearray(RECEIVE_MORE_BYTES))
        self.max_pending_calls = max_pending_calls
        self.ready: deque[Batch] = deque()
        self.long: deque[Batch] = deque()
        self.add = self.ready.append
        self.add_long = self.long.append
        self._turn: Iterator[Any] = iter(())  # the calls of the long batch that is in `ready`
        self.begun = 0  # calls that were ever queued and not withdrawn
        #: Calls by their full kind, None if they want a greenlet: each with its outbox, and when it came.
        self.held: dict[Any, deque[tuple[Any, Any, float]]] = {}
        self._crowded: set[Any] = set()  # outboxes whose connections are not read for that
        self.is_scheduled = False
        self.turn_at = 0.0  # monotonic seconds, when the first calls of this turn of the loop came
        self.schedule: Callable[[], None] = lambda: None  # the engine's
        self.is_full = False  # all greenlets are taken
        self.waiting: set[Listener] = set()  # connections that are not read until it is their turn
        self.dirty: list[Any] = []  # outboxes that have something to send at the end of this turn
        self.tally: Silent = Silent()
        self.parked: Any = None  # the `ParkedCalls`
        self.leading: Any = None  # the `Leading`
        self.refuse_rate: Callable[[str], Exception]  # counts a call past its rate, and returns its answer
        self.tables: Any  # of the methods, for a connection without rules
        self.cancelling: Any = None  # the `Cancelling`
        self.dropped_replies = 0
        self.handled_large = False

    def go_on(self) -> None:
        """Let the next long batch have its turn, if the last one is used up."""
        if is_used_up(self._turn):
            self.ready.append(self.long.popleft())
            self._turn = self.ready[-1][1]

    def hold(self, kind: Any, outbox: Any, call: Any, arrived_at: float) -> None:
        """Hold ``call`` back until its ``kind`` has room for it, or a greenlet is free if that is None.

        It came at ``arrived_at``, in monotonic seconds.
        """
        entry = (outbox, call, arrived_at)  # made first: no garbage is collected amid the next line
        self.held.setdefault(kind, deque()).append(entry)
        outbox.held += 1
        if outbox.held > MOST_HELD:
            self.crowd(outbox)

    def crowd(self, outbox: Any) -> None:
        """Let a connection not be read until fewer of its calls are held back."""
        if outbox not in self._crowded:
            self._crowded.add(outbox)
            outbox.tell(Happened.HELD_BACK)

    def let_go(self) -> None:
        """Let calls of native kinds have their turn before all others, as many as there is room for."""
        for kind in list(self.held):
            if kind is not None:
                going = [self.let_one_go(kind) for _ in range(min(len(self.held[kind]), max(0, kind.room)))]
                self.ready.extendleft(reversed(going))

    @property
    def has_free_kind(self) -> bool:
        """Whether calls of a native kind are held back that has room for them."""
        return any(kind is not None and kind.room > 0 for kind in self.held)

    def let_one_go(self, kind: Any) -> Batch:
        """Take the first held call of ``kind``, which has one."""
        held = self.held[kind]
        outbox, call, arrived_at = held.popleft()
        if not held:
            del self.held[kind]
        self._uncrowd(outbox)
        return outbox, iter([call]), arrived_at

    def _uncrowd(self, outbox: Any) -> None:
        """Count a call of ``outbox`` that is not held back any more."""
        outbox.held -= 1
        if outbox.held <= MOST_HELD // 2 and outbox in self._crowded:
            self._crowded.discard(outbox)
            outbox.tell(Happened.LET_GO)

    @property
    def waiting_calls(self) -> int:
        """Number of calls that wait for their turn."""
        held = sum(map(len, self.held.values())) if self.held else 0
        return held + sum(length_hint(batch[1]) for batch in chain(self.ready, self.long))

    def look(self) -> dict[Any, list[Any]]:
        """Return all calls that wait for their turn, by outbox, and leave them in place."""
        waiting: dict[Any, list[Any]] = {}
        for outbox, call, _ in chain(*self.held.values()):
            waiting.setdefault(outbox, []).append(call)
        for outbox, calls, _ in chain(self.ready, self.long):
            if not is_used_up(calls):
                waiting.setdefault(outbox, []).extend(copy(calls))  # copying an iterator leaves it as it is
        return waiting

    def withdraw(self, outboxes: Container[Any]) -> dict[Any, list[Any]]:
        """Take the calls of ``outboxes`` that wait for their turn out of the queues."""
        taken = self._withdraw_held(outboxes) if self.held else {}
        for outbox, calls, arrived_at in chain(self.ready, self.long):
            if outbox in outboxes and not is_used_up(calls):
                taken.setdefault(outbox, []).extend(with_deadlines(calls, arrived_at))
        self.begun -= sum(map(len, taken.values()))
        return taken

    def take_held(self, outbox: Any, msgid: int) -> list[Any]:
        """Take out the held requests of ``outbox`` with ``msgid``."""
        taken: list[Any] = []
        for kind, held in list(self.held.items()):
            found = [entry for entry in held if entry[0] is outbox and msgids_of([entry[1]]) == [msgid]]
            for entry in found:
                held.remove(entry)
                self._uncrowd(outbox)
            if not held:
                del self.held[kind]
            taken += [call for _, call, _ in found]
        return taken

    def _withdraw_held(self, outboxes: Container[Any]) -> dict[Any, list[Any]]:
        taken: dict[Any, list[Any]] = {}
        for kind, held in list(self.held.items()):
            kept: deque[tuple[Any, Any, float]] = deque()
            for entry in held:
                outbox, call, _ = entry
                if outbox in outboxes:
                    taken.setdefault(outbox, []).append(call)
                    self._uncrowd(outbox)
                else:
                    kept.append(entry)
            self.held[kind] = kept
            if not kept:
                del self.held[kind]
        return taken

    def clear(self) -> None:
        """Forget all calls, which another process has."""
        self.held.clear()
        self.ready.clear()
        self.long.clear()
