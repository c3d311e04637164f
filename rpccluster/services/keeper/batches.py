"""Runs verbs in batches: all that one turn of the loop brought is one transaction of the engine. Runs in the keeper.

The next batch gathers while a native thread waits for the present one to be committed; its answers leave then. So a
hundred producers share one fsync, and the slower the disk is, the more share it.

Where the answers change nothing that the next batch depends on, and it is short, it goes off before they leave: then
the disk does not wait for them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Any, Callable

from rpccluster.log import logger
from rpccluster.queues.engine import Answer, Engine, Outcome, Put, Verb
from rpccluster.system import READABLE
from rpccluster.worker.native.primitives import SimpleQueue, allocate_lock, start_new_thread
from rpccluster.worker.native.wake import Wake

__all__ = ["Attention", "Batches"]

SWITCH_SECONDS = 0.0005  # for which the thread, back from the disk, waits at most for a busy loop; Python's are 5 ms
IDLE_SECONDS = 0.05  # without a batch, after which the file is looked after
PAUSE_SECONDS = 0.002  # between two pieces of that
BUSY_SECONDS = 1.0  # between two pieces, while one batch follows the other
MOST_VALUES = 500  # of a batch that goes off before the answers of the one before: some milliseconds
EARLY_SECONDS = 0.001  # by which a batch may come too early for what time brings

Done = Callable[[Any], object]


class Attention:
    """Tells when a keeper that is never idle looks after its file: between two batches, once a second. Pure."""

    def __init__(self) -> None:
        self._since = float("inf")  # monotonic seconds: the begin of work, or the last piece of upkeep; infinity: none

    def note_batch(self, now: float) -> bool:
        """Note that a batch was committed. Returns whether a piece of upkeep comes before the next one."""
        self._since = min(self._since, now)
        return now >= self._since + BUSY_SECONDS

    def note_piece(self, now: float, *, is_all: bool) -> None:
        """Note that a piece of upkeep was done; ``is_all``: nothing else is to be done at all."""
        self._since = float("inf") if is_all else now


class Batches:
    """The batches of one engine."""

    def __init__(
        self,
        engine: Engine,
        loop: Any,
        on_failed: Callable[[BaseException], object],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """``on_failed`` is called when the engine can run nothing more."""
        self._clock = clock
        self._attention = Attention()
        self._engine = engine
        self._loop = loop
        self._on_failed = on_failed
        self._added: list[tuple[Verb, Done]] = []
        self._running: list[tuple[Verb, Done]] = []
        self._is_busy = False  # the engine works
        self._busy_since = float("inf")  # monotonic seconds; infinity if it owes no answer
        self._is_due = False
        self._has_failed = False
        self._ran = 0  # batches so far
        self._wakes_at = float("inf")  # monotonic seconds
        self._timer: Any = None
        self._idle_timer: Any = None
        self._watcher: Any = None  # of the engine's descriptor
        #: Called before a batch goes off; its verbs come behind all that were added.
        self.before_batch: Callable[[], list[tuple[Verb, Done]]] = list
        #: Called with the answers of a batch, before they are told: whether they change nothing for the next one.
        self.may_go_on: Callable[[Sequence[Answer]], bool] = lambda answers: False
        #: Called after the answers of a batch, with the queues that have something ready, and those that have room.
        self.after_batch: Callable[[frozenset[str], frozenset[str]], object] = lambda ready, room: None
        sys.setswitchinterval(SWITCH_SECONDS)
        self._wake = Wake(loop, self._take)
        self._orders = SimpleQueue()
        self._ended = allocate_lock()
        self._ended.acquire()
        start_new_thread(self._work, ())

    @property
    def is_idle(self) -> bool:
        """Whether nothing was added, and nothing runs."""
        return not (self._added or self._running or self._is_due)

    def busy_since(self) -> float:
        """Return since when the engine has owed the answers of a batch; infinity if it owes none."""
        return self._busy_since

    def add(self, verb: Verb, done: Done) -> None:
        """Run ``verb`` with the next batch; ``done`` gets its answer."""
        self._added.append((verb, done))
        if not self._is_due:
            self.wake()

    def wake(self) -> None:
        """Run a batch soon: at the end of this turn of the loop, or after the batch that runs."""
        if not self._is_due:
            self._is_due = True
            if not self._is_busy:
                self._loop.run_callback(self._go)

    def close(self) -> None:
        """Wait for what the thread does, and end the engine."""
        self._orders.put(None)
        self._ended.acquire()
        self._wake.close()
        self._engine.close()

    # -- a batch

    def _go(self) -> None:
        if self._is_busy or self._has_failed:
            return
        begun = self._begin()
        if isinstance(begun, Outcome):
            self._note(begun)

    def _begin(self) -> Outcome | None:
        """Begin a batch. Returns its outcome, if that is known already."""
        self._is_due = False
        self._ran += 1
        before = self.before_batch()
        self._running = running = [*self._added, *before] if before else self._added
        self._added = []
        try:
            begun = self._engine.start([verb for verb, _ in running])
        except Exception as error:
            self._fail(error)
            return None
        self._is_busy = True
        self._busy_since = self._clock()
        if isinstance(begun, Outcome):
            return begun
        self._orders.put((begun, self._note))
        return None

    def _note(self, outcome: Outcome) -> None:
        """Answer a batch."""
        running, self._running = self._running, []
        self._is_busy = False
        self._busy_since = float("inf")
        is_due = self._attention.note_batch(self._clock())
        another = self._begin() if not is_due and self._may_go_on(outcome) else None
        for (_, done), answer in zip(running, outcome.answers):
            done(answer)
        for warning in self._engine.warnings():
            logger.warning("%s", warning)
        self.after_batch(outcome.ready, outcome.room)
        if outcome.wake_in is not None:
            self._wake_at(self._clock() + outcome.wake_in)
        if another is not None:
            self._loop.run_callback(self._note, another)
        elif not self._is_busy:
            self._rest(is_due)

    def _may_go_on(self, outcome: Outcome) -> bool:
        """Return whether the next batch may begin before the answers of this one are told."""
        if not self._is_due or self._has_failed or not self.may_go_on(outcome.answers):
            return False
        values = sum(len(verb.values) for verb, _ in self._added if type(verb) is Put)
        return values <= MOST_VALUES

    def _rest(self, is_due: bool) -> None:
        """Wait for what comes next; before it comes a piece of upkeep that ``is_due``."""
        self._watch()
        if is_due:
            self._do_a_piece(is_idle=False)
        elif self._is_due:
            self._loop.run_callback(self._go)
        elif self._idle_timer is None:
            self._idle_timer = self._after(IDLE_SECONDS, self._look_after, self._ran)

    def _fail(self, error: BaseException) -> None:
        self._has_failed = True
        self._on_failed(error)

    # -- the thread

    def _work(self) -> None:
        while True:
            order = self._orders.get()
            if order is None:
                break
            do, note = order
            try:
                result = do()
            except BaseException as error:
                self._wake.put((self._fail, error))
                break
            self._wake.put((note, result))
        self._ended.release()

    def _take(self, note: Callable[[Any], object], result: Any) -> None:
        note(result)

    # -- what time brings

    def _after(self, seconds: float, do: Callable[..., object], *arguments: Any) -> Any:
        timer = self._loop.timer(seconds)
        timer.start(do, *arguments)
        return timer

    def _wake_at(self, at: float) -> None:
        if at >= self._wakes_at - EARLY_SECONDS:
            return
        self._wakes_at = at
        if self._timer is not None:
            self._timer.close()
        self._timer = self._after(max(0.0, at - self._clock()), self._wake_by_time)

    def _wake_by_time(self) -> None:
        self._wakes_at = float("inf")
        self.wake()

    def _watch(self) -> None:
        """Run a batch when the engine's descriptor is readable; it is watched again after that."""
        descriptor = self._engine.fileno()
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        if descriptor is not None:
            self._watcher = self._loop.io(descriptor, READABLE, ref=False)
            self._watcher.start(self._note_readable)

    def _note_readable(self) -> None:
        self._watcher.stop()
        self.wake()

    # -- upkeep

    def _look_after(self, ran: int) -> None:
        """Do a piece of upkeep, if nothing was run meanwhile."""
        self._idle_timer.close()
        self._idle_timer = None
        if ran != self._ran or self._is_busy:
            self._idle_timer = self._after(IDLE_SECONDS, self._look_after, self._ran)
        elif not self._has_failed:
            self._do_a_piece(is_idle=True)

    def _do_a_piece(self, *, is_idle: bool) -> None:
        self._is_busy = True
        self._orders.put((partial(self._engine.keep_up, is_idle=is_idle), self._note_upkeep))

    def _note_upkeep(self, is_more: bool) -> None:
        self._is_busy = False
        self._attention.note_piece(self._clock(), is_all=not (is_more or self._is_due))
        if self._is_due:
            self._loop.run_callback(self._go)
        elif is_more and self._idle_timer is None:
            self._idle_timer = self._after(PAUSE_SECONDS, self._look_after, self._ran)
