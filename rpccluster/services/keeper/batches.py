"""Runs verbs in batches: all that one turn of the loop brought is one transaction of the engine. Runs in the keeper.

The engine works in a native thread; meanwhile the next batch gathers. Answers leave after the commit.
"""

from __future__ import annotations

from typing import Any, Callable

from gevent.monkey import get_original

from rpccluster.errors import EngineFailed
from rpccluster.queues.engine import Engine, Outcome, Verb
from rpccluster.worker.native.wake import Wake

__all__ = ["Batches"]

_SimpleQueue = get_original("queue", "SimpleQueue")
_start_thread = get_original("_thread", "start_new_thread")

Done = Callable[[Any], object]


class Batches:
    """The batches of one engine."""

    def __init__(self, engine: Engine, loop: Any, on_failed: Callable[[BaseException], object]) -> None:
        """``on_failed`` is called when the engine can run nothing more."""
        self._engine = engine
        self._loop = loop
        self._on_failed = on_failed
        self._added: list[tuple[Verb, Done]] = []
        self._running: list[tuple[Verb, Done]] | None = None
        self._is_due = False
        self._timer: Any = None
        self._wake = Wake(loop, self._note)
        self._orders: Any = _SimpleQueue()
        self.before_batch: Callable[[], list[tuple[Verb, Done]]] = list
        self.after_batch: Callable[[frozenset[str], frozenset[str]], object] = lambda ready, room: None
        _start_thread(self._work, ())

    @property
    def is_idle(self) -> bool:
        """Whether nothing was added, and nothing runs."""
        return not self._added and self._running is None and not self._is_due

    def add(self, verb: Verb, done: Done) -> None:
        """Run ``verb`` with the next batch; ``done`` gets its answer."""
        self._added.append((verb, done))
        self.wake()

    def wake(self) -> None:
        """Run a batch soon."""
        if not self._is_due:
            self._is_due = True
            if self._running is None:
                self._loop.run_callback(self._go)

    def _go(self) -> None:
        if self._running is not None:
            return
        self._is_due = False
        self._running = [*self._added, *self.before_batch()]
        self._added = []
        try:
            begun = self._engine.start([verb for verb, _ in self._running])
        except BaseException as error:
            self._note(None, error)
            return
        if isinstance(begun, Outcome):
            self._note(begun, None)
        else:
            self._orders.put(begun)

    def _work(self) -> None:
        while True:
            order = self._orders.get()
            if order is None:
                return
            try:
                outcome = order()
            except BaseException as error:
                self._wake.put((None, error))
                return
            self._wake.put((outcome, None))

    def _note(self, outcome: Outcome | None, error: BaseException | None) -> None:
        running, self._running = self._running, None
        if outcome is None or running is None:
            self._on_failed(error or EngineFailed("no batch runs"))
            return
        for (_, done), answer in zip(running, outcome.answers):
            done(answer)
        self.after_batch(outcome.ready, outcome.room)
        if self._is_due:
            self._loop.run_callback(self._go)
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
        if outcome.wake_in is not None:
            self._timer = self._loop.timer(outcome.wake_in)
            self._timer.start(self.wake)

    def close(self) -> None:
        """End the engine."""
        self._orders.put(None)
        self._engine.close()
