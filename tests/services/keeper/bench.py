"""A keeper without a process: its desk on the real engine, batches that run when they are told to, a made-up clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack

from rpccluster.queues.engine import Get, Outcome, Put, Rules, Verb
from rpccluster.queues.sqlite import SQLiteEngine
from rpccluster.service import Later
from rpccluster.services.keeper.desk import Desk
from rpccluster.services.keeper.patience import Patience
from rpccluster.services.keeper.sessions import Bound
from rpccluster.services.keeper.waiting import NEVER, Call

__all__ = ["Bench", "answer", "session"]


class Loop:
    """A loop whose timers the test lets end."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def timer(self, seconds: float) -> Timer:
        self.timers.append(Timer(seconds))
        return self.timers[-1]


class Timer:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_closed = False

    def start(self, do: Callable[..., object]) -> None:
        self.do = do

    def stop(self) -> None: ...

    def close(self) -> None:
        self.is_closed = True


class Batches:
    """Batches that run one after another when `turn` is called."""

    def __init__(self, engine: SQLiteEngine) -> None:
        self._engine = engine
        self.added: list[tuple[Verb, Callable[[Any], object]]] = []
        self.before_batch: Callable[[], list[Any]] = list
        self.after_batch: Callable[[frozenset[str], frozenset[str]], object] = lambda ready, room: None
        self.may_go_on: Callable[[Sequence[Any]], bool] = lambda answers: False
        self.early = 0  # batches that began before the answers of the one before were told
        self.is_due = False
        self.ran: list[list[Verb]] = []
        self.between: Callable[[], object] = lambda: None  # called while the engine has a batch
        self.since = NEVER

    def busy_since(self) -> float:
        return self.since

    def add(self, verb: Verb, done: Callable[[Any], object]) -> None:
        self.added.append((verb, done))
        self.wake()

    def wake(self) -> None:
        self.is_due = True

    def turn(self) -> None:
        while self.is_due:
            self._note(*self._begin())

    def _begin(self) -> tuple[list[Any], Outcome]:
        self.is_due = False
        running, self.added = [*self.added, *self.before_batch()], []
        self.ran.append([verb for verb, _ in running])
        begun = self._engine.start(self.ran[-1])
        outcome = begun if isinstance(begun, Outcome) else begun()
        self.between()
        return running, outcome

    def _note(self, running: list[Any], outcome: Outcome) -> None:
        another = self._begin() if self.is_due and self.may_go_on(outcome.answers) else None
        self.early += another is not None
        for (_, done), answer in zip(running, outcome.answers):
            done(answer)
        self.after_batch(outcome.ready, outcome.room)
        if another is not None:
            self._note(*another)


class Bench:
    """The desk, and calls at it."""

    def __init__(self, folder: Path, **rules: Any) -> None:
        self.now = 100.0
        self.engine = SQLiteEngine(str(folder / "queues.db"), "os")
        self.engine.open()
        self.engine.configure({"q": Rules(**rules)}, None)
        self.loop = Loop()
        self.batches = Batches(self.engine)
        patience = Patience(self.loop, lambda: self.now, self.batches.busy_since)
        self.desk = Desk(self.batches, self.loop, lambda: self.now, patience)

    def get(self, number: int, timeout: float | None = None, *, n: int = 1, seq: int = 0, turn: bool = True) -> Call:
        """A get of the consumer ``number``."""
        ends_at = NEVER if timeout is None else self.now + timeout
        call = Call("q", Get("q", session(number), n, seq or None), Later(), ends_at, Bound(self.desk.withdraw))
        self.desk.get(call)
        return self._turned(call, turn)

    def put(self, *values: Any, timeout: float | None = None, turn: bool = True, **options: Any) -> Call:
        """A put of ``values``."""
        ends_at = NEVER if timeout is None else self.now + timeout
        call = Call("q", Put("q", [msgpack.packb(value) for value in values], **options), Later(), ends_at)
        self.desk.put(call)
        return self._turned(call, turn)

    def join(self) -> Call:
        """A call that waits for the last item."""
        call = Call("q", None, Later(), NEVER)
        self.desk.join(call)
        return self._turned(call, True)

    def run(self, verb: Verb) -> Any:
        """The answer of a verb."""
        later = self.desk.run(verb, Later())
        self.batches.turn()
        return answer(later)

    def _turned(self, call: Call, turn: bool) -> Call:
        if turn:
            self.batches.turn()
        return call

    def pass_time(self, seconds: float, *, turn: bool = True) -> None:
        """Let the desk's timers end that are due then."""
        self.now += seconds
        for timer in [timer for timer in self.loop.timers if not timer.is_closed]:
            timer.close()
            timer.do()
        if turn:
            self.batches.turn()

    def close(self) -> None:
        """End the engine."""
        self.engine.close()


def session(number: int) -> bytes:
    """The session of a consumer."""
    return b"session of %08d" % number


def answer(later: Later) -> Any:
    """What a call was answered with; raises its error; None while it waits."""
    if later._outcome is None:
        return None
    error, value = later._outcome
    if error is not None:
        raise error
    return msgpack.unpackb(value) if isinstance(value, bytes) else value
