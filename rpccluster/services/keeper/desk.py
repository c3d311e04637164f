"""Brings calls and items together: runs the verbs of calls, and lets those wait that find nothing, or no room.

Nothing is polled. Behind the puts of a turn stand the gets of those that wait, as many as there may be items for, in
the same batch; so one commit serves both. The gets that have just come stand behind them: nobody overtakes. What gets
ready by time, or by the end of a consumer, the engine tells, and the next batch begins with those that wait for it.
Runs in the keeper, on the loop.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Callable

from rpccluster.errors import QueueDown, QueueFull
from rpccluster.protocol.codec import Encoded, make_packer
from rpccluster.queues.engine import Get, List, Nack, Put, Stats, Verb
from rpccluster.service import Later
from rpccluster.services.keeper.patience import Patience
from rpccluster.services.keeper.sessions import Bound
from rpccluster.services.keeper.waiting import NEVER, Call, Waiting

__all__ = ["Desk", "encoded", "is_done"]

MOST_ASKED = 256  # waiting calls of a queue that one batch runs again

_pack = make_packer().pack

#: Gets the answer of a verb, which may be an exception, after its commit.
Done = Callable[[Any], object]


class Desk:
    """All calls that have come and are not answered."""

    def __init__(
        self, batches: Any, loop: Any, clock: Callable[[], float] = time.monotonic, patience: Patience | None = None
    ) -> None:
        """``batches`` runs verbs; see `rpccluster.services.keeper.batches.Batches`.

        ``patience`` is for a store that may be silent.
        """
        self._batches = batches
        self._loop = loop
        self.clock = clock
        self.gets = Waiting()
        self.puts = Waiting()
        self.joins = Waiting()
        self._putting, self._joining = Bound(self.puts.remove), Bound(self.joins.remove)
        self._new: list[Call] = []  # gets that have just come
        self._hope: dict[str, float] = {}  # how many items the next batch may have for those that wait, by queue
        self._room: set[str] = set()  # queues that something has left
        self._more_puts: set[str] = set()  # queues of which not all puts that wait are in the present batch
        self._fruitless: set[str] = set()  # queues that had nothing for a get of the present batch
        self._timer: Any = None
        self._wakes_at = NEVER
        self.keeps: Callable[[Call], object] | None = None  # gets each call that begins to wait, at the end
        self.refuses = ""  # why no call may wait any more
        batches.before_batch, batches.after_batch = self._before_batch, self._after_batch
        batches.may_go_on = self._may_go_on
        self._patience = patience
        if patience is not None:
            patience.on_over = self._note_late

    # -- calls come

    def run(self, verb: Verb, later: Later, encode: Callable[[Any], Any] | None = None) -> Later:
        """Run ``verb``, and answer with what comes of it."""
        self._batches.add(verb, partial(_answer, later, encode))
        return later

    def expect(self, queue: str, number: float) -> None:
        """Expect items for those that wait by then, from what was added to the next batch."""
        self._hope[queue] = self._hope.get(queue, 0) + number

    def put(self, call: Call) -> Later:
        """Run a put; it waits while its queue is full."""
        call.connection, call.later._on_over = self._putting, call
        twin = self.puts.twin(call) if self.puts.count else None
        if twin is not None:
            self._take_place(self.puts, twin, call)
            return call.later
        verb: Put = call.verb
        self._batches.add(verb, partial(self._note_put, call))
        if not verb.delay:
            self.expect(call.queue, len(verb.values))
        if self._patience is not None:
            self._patience.begin(call)
        return call.later

    def get(self, call: Call) -> Later:
        """Run a get; it waits while there is nothing."""
        call.later._on_over = call
        twin = self.gets.twin(call) if self.gets.count else None
        if twin is not None:
            if call.verb.ack:
                self._batches.add(call.verb._replace(n=0, seq=None), _ignore)
            twin.connection.calls.pop(twin, None)
            self._take_place(self.gets, twin, call)
            twin.connection.calls[twin] = None
        else:
            self._new.append(call)
            self._batches.wake()
            if self._patience is not None:
                self._patience.begin(call)
        return call.later

    def _take_place(self, waiting: Waiting, twin: Call, call: Call) -> None:
        twin.later.fail(QueueDown("a repeat of this call waits in its place"))
        twin.later, twin.ends_at, twin.connection = call.later, call.ends_at, call.connection
        call.later._on_over = twin
        waiting.note_end(twin)
        if self._patience is not None:
            self._patience.begin(twin)
        self._arm()

    def join(self, call: Call) -> Later:
        """Answer when nothing of a queue is left."""
        call.connection, call.later._on_over = self._joining, call
        self._batches.add(Stats(call.queue), partial(self._note_stats, call))
        return call.later

    def tell_of_all(self, later: Later, tell: Callable[[str, Any], Any]) -> None:
        """Answer with what ``tell`` makes of the name and the stats of each queue."""
        self._batches.add(List(), partial(self._note_list, later, tell))

    def _note_list(self, later: Later, tell: Callable[[str, Any], Any], answer: Any) -> None:
        if isinstance(answer, BaseException) or not answer:
            _answer(later, None, answer)
            return
        told: list[Any] = []

        def note(name: str, stats: Any) -> None:
            told.append(None if isinstance(stats, BaseException) else tell(name, stats))
            if len(told) == len(answer):
                later.reply([each for each in told if each is not None])

        for name in answer:
            self._batches.add(Stats(name), partial(note, name))

    def withdraw(self, call: Call) -> None:
        """Forget a get that was answered, or is over without an answer."""
        if self.gets.count and self.gets.remove(call):
            call.connection.calls.pop(call, None)

    # -- batches

    def _before_batch(self) -> list[tuple[Verb, Done]]:
        """Return the verbs of those that wait, and behind them those of the gets that have come."""
        verbs = [*self._joins_again(), *self._puts_again()]
        is_left = set()
        for queue, hope in self._hope.items():
            asked = [call for call in _first(self.gets, queue, min(hope, MOST_ASKED)) if not call.later.is_over]
            verbs += [self._ask(call) for call in asked]
            if len(asked) >= MOST_ASKED:
                is_left.add(queue)
        self._hope.clear()
        new, self._new = self._new, []
        for call in new:
            if call.queue in is_left:  # those before it have not all been asked
                self._new.append(call)
            elif not call.later.is_over:
                verbs.append(self._ask(call))
        return verbs

    def _ask(self, call: Call) -> tuple[Verb, Done]:
        call.is_asked = True
        return call.verb, partial(self._note_got, call)

    def _puts_again(self) -> list[tuple[Verb, Done]]:
        verbs: list[tuple[Verb, Done]] = []
        self._more_puts = {queue for queue in self._room if self.puts.number(queue) > MOST_ASKED}
        for queue in sorted(self._room):
            for call in _first(self.puts, queue, MOST_ASKED):
                if call.later.is_over:  # its end is just being told
                    continue
                call.is_asked = True
                verbs.append((call.verb, partial(self._note_put, call)))
                if not call.verb.delay:
                    self.expect(queue, len(call.verb.values))
        self._room.clear()
        return verbs

    def _joins_again(self) -> list[tuple[Verb, Done]]:
        return [
            (Stats(queue), partial(self._note_stats, call))
            for queue in sorted(self._room)
            for call in list(self.joins.of(queue))
        ]

    def _after_batch(self, ready: frozenset[str], room: frozenset[str]) -> None:
        for queue in ready - self._fruitless:
            if self.gets.number(queue):
                self._hope[queue] = NEVER
        self._fruitless.clear()
        self._room |= {queue for queue in room if self.puts.number(queue) or self.joins.number(queue)}
        if self._hope or self._room or self._new:
            self._batches.wake()

    def _may_go_on(self, answers: Sequence[Any]) -> bool:
        """Return whether the next batch may begin before these answers are told: nobody waits, nor will by them.

        A batch with gets costs so much that it had better gather more of them meanwhile.
        """
        if self._new or self.gets.count or self.puts.count or self._room:
            return False
        return all(answers) and not any(isinstance(answer, BaseException) for answer in answers)

    # -- answers

    def _note_got(self, call: Call, answer: Any) -> None:
        call.is_asked, verb = False, call.verb
        if isinstance(answer, BaseException):
            self.withdraw(call)
            call.later.fail(answer)
        elif answer:
            self.withdraw(call)
            if not call.later.reply(encoded(answer)) and not (call.is_given_up and verb.seq):
                for item in answer:  # its caller has been answered, or has gone, and does not repeat it
                    self._batches.add(Nack(call.queue, item.id, item.attempt), _ignore)
        else:
            self._note_nothing(call)

    def _note_nothing(self, call: Call) -> None:
        """Let a get wait that has found nothing, if it may."""
        self._fruitless.add(call.queue)
        verb: Get = call.verb
        if call.ends_at <= self.clock() or not verb.n or call.connection.is_half_closed:
            self.withdraw(call)
            call.later.reply([])
        elif self.refuses:
            self.withdraw(call)
            call.later.fail(QueueDown(self.refuses))
        elif not self.gets.has(call) and not call.later.is_over:
            if verb.ack:
                call.verb = verb._replace(ack=())
            self.gets.add(call)
            call.connection.calls[call] = None
            self._begin_to_wait(call)

    def _begin_to_wait(self, call: Call) -> None:
        if self.keeps is not None:
            self.keeps(call)
        self._arm()

    def _note_put(self, call: Call, answer: Any) -> None:
        call.is_asked = False
        is_full = isinstance(answer, QueueFull) and not answer.is_for_good
        if is_full and call.ends_at > self.clock() and not call.later.is_over:
            if self.refuses:
                self.puts.remove(call)
                call.later.fail(QueueDown(self.refuses))
            elif not self.puts.has(call):
                self.puts.add(call)
                self._begin_to_wait(call)
            return
        if call.queue in self._more_puts and not isinstance(answer, BaseException):
            self._room.add(call.queue)
        if self.puts.count:
            self.puts.remove(call)
        _answer(call.later, call.encode, answer)

    def _note_stats(self, call: Call, answer: Any) -> None:
        if isinstance(answer, BaseException) or is_done(answer):
            self.joins.remove(call)
            _answer(call.later, is_done, answer)
        elif self.refuses:
            call.later.fail(QueueDown(self.refuses))
        elif not self.joins.has(call) and not call.later.is_over:
            self.joins.add(call)
            if self.keeps is not None:
                self.keeps(call)

    # -- time

    def _arm(self) -> None:
        at = min(self.gets.wake_at, self.puts.wake_at)
        if at < self._wakes_at:
            if self._timer is not None:
                self._timer.stop()
                self._timer.close()
            self._wakes_at = at
            self._timer = self._loop.timer(max(0.0, at - self.clock()))
            self._timer.start(self._tick)

    def _tick(self) -> None:
        now = self.clock()
        self._wakes_at = NEVER
        for call in self.gets.over(now):
            if not call.is_asked:  # else it may just be given an item
                self.withdraw(call)
                call.later.reply([])
        for call in self.puts.over(now):
            if not call.is_asked:
                self.puts.remove(call)
                call.later.fail(QueueFull(f"{call.queue} had no room within the timeout"))
        self._arm()

    def _note_late(self, call: Call, is_silent: bool) -> bool:
        """Answer a call whose time is over while the store has its verb, if the store ``is_silent``."""
        is_get = isinstance(call.verb, Get)
        waits = (self.gets if is_get else self.puts).has(call) and not call.is_asked
        if call.later.is_over or waits:
            return True
        if is_silent:
            call.is_given_up = True
            self.withdraw(call) if is_get else self.puts.remove(call)
            call.later.fail(QueueDown("the store of the items does not answer; it may have done this call"))
        return is_silent

    # -- the end

    def let_go(self, calls: list[Call]) -> None:
        """Answer gets whose peer sends nothing more, as if their time was over."""
        for call in calls:
            self.withdraw(call)
            call.later.reply([])

    def waiting(self) -> list[Call]:
        """Return all calls that wait."""
        return [*self.gets.all(), *self.puts.all(), *self.joins.all()]

    def refuse(self, reason: str) -> None:
        """Let no call wait any more, since everything ends."""
        self.refuses = reason
        for waiting in (self.gets, self.puts, self.joins):
            for call in waiting.all():
                waiting.remove(call)
                call.later.fail(QueueDown(reason))


def encoded(items: Sequence[tuple[Any, ...]]) -> Encoded:
    """Make the answer of items, whose third field is a value as it came."""
    parts = [_array_of(len(items))]
    for item in items:
        id, attempt, value, *more = item
        parts += (_array_of(len(item)), _pack(id), _pack(attempt), value, *map(_pack, more))
    return Encoded(b"".join(parts))


def _array_of(length: int) -> bytes:
    """Return the head of a MessagePack array."""
    if length < 16:
        return bytes((0x90 | length,))
    return struct.pack(">BH", 0xDC, length) if length < 1 << 16 else struct.pack(">BI", 0xDD, length)


def is_done(stats: dict[str, Any]) -> bool:
    """Return whether a queue has nothing that a consumer has, or could get."""
    return not (stats["ready"] or stats["delayed"] or stats["leased"])


def _first(waiting: Waiting, queue: str, number: float) -> list[Call]:
    found: list[Call] = []
    for call in waiting.of(queue):
        if len(found) >= number:
            break
        found.append(call)
    return found


def _answer(later: Later, encode: Callable[[Any], Any] | None, answer: Any) -> None:
    if isinstance(answer, BaseException):
        later.fail(answer)
    else:
        later.reply(answer if encode is None else encode(answer))


def _ignore(answer: Any) -> None:
    pass
