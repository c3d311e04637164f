"""When the file is looked after: when nothing runs, and between two batches where one follows the other for ever."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Callable

import gevent
import pytest

from rpccluster.queues.engine import List, Outcome, Put, Verb
from rpccluster.services.keeper.batches import BUSY_SECONDS, MOST_VALUES, Attention, Batches

TURN_SECONDS = BUSY_SECONDS / 8  # by the made-up clock; an exact number


class Engine:
    """An engine whose batches take time by the clock alone."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done: list[str] = []
        self.is_closed = False

    def start(self, verbs: Sequence[Verb]) -> Callable[[], Outcome]:
        self.now += TURN_SECONDS
        return lambda: self.run(verbs)

    def run(self, verbs: Sequence[Verb]) -> Outcome:
        self.done.append("batch")
        return Outcome([[] for _ in verbs], frozenset(), frozenset(), None)

    def warnings(self) -> list[str]:
        return []

    def fileno(self) -> None:
        return None

    def keep_up(self, *, is_idle: bool = True) -> bool:
        self.done.append("idle" if is_idle else "between")
        return False

    def close(self) -> None:
        self.is_closed = True


def until(is_so: Callable[[], Any]) -> None:
    """Let the loop run until ``is_so``."""
    with gevent.Timeout(30):
        while not is_so():
            gevent.sleep(0.001)


def test_a_keeper_that_is_never_idle_looks_after_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second, in the thread and before the next batch; and again as soon as it is idle."""
    monkeypatch.setattr("sys.setswitchinterval", lambda seconds: None)  # it is the test process's
    engine = Engine()
    failures: list[BaseException] = []
    batches = Batches(engine, gevent.get_hub().loop, failures.append, lambda: engine.now)
    left = [40]

    def again(answer: Any) -> None:
        left[0] -= 1
        if left[0]:
            batches.add(List(), again)

    batches.add(List(), again)
    until(lambda: not left[0])
    until(lambda: "idle" in engine.done)
    busy = engine.done[: engine.done.index("idle")]
    assert busy.count("batch") == 40
    assert [at for at, what in enumerate(busy) if what == "between"] == [9, 18, 27, 36]
    batches.close()
    assert (failures, engine.is_closed) == ([], True)


def test_upkeep_comes_between_batches_only_after_a_second_without_a_pause() -> None:
    """A keeper that had time for all of it is not held up by the first call after that."""
    attention = Attention()
    assert [attention.note_batch(at) for at in (5.0, 5.5, 5.999, 6.0, 6.1)] == [False, False, False, True, True]
    attention.note_piece(6.2, is_all=False)
    assert [attention.note_batch(at) for at in (6.3, 7.1, 7.2)] == [False, False, True]
    attention.note_piece(7.2, is_all=True)
    assert [attention.note_batch(at) for at in (60.0, 60.5, 61.0)] == [False, False, True]


class Slow(Engine):
    """An engine whose batches with a `Put` are committed when the test says so; it notes what happens."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = threading.Semaphore(0)

    def start(self, verbs: Sequence[Verb]) -> Any:
        self.done.append("begin")
        outcome = Outcome([True for _ in verbs], frozenset(), frozenset(), None)
        if not any(isinstance(verb, Put) for verb in verbs):
            return outcome

        def commit() -> Outcome:
            self.commits.acquire(timeout=30)
            return outcome

        return commit


@pytest.mark.parametrize("may_go_on", [True, False])
@pytest.mark.parametrize("following", ["short", "long", "known"])
def test_a_short_batch_begins_before_the_answers_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch, may_go_on: bool, following: str
) -> None:
    """Where it may; and all answers are told in their order."""
    monkeypatch.setattr("sys.setswitchinterval", lambda seconds: None)  # it is the test process's
    engine = Slow()
    batches = Batches(engine, gevent.get_hub().loop, lambda error: None)
    batches.may_go_on = lambda answers: may_go_on and list(answers) == [True]
    verbs = {"short": Put("q", [b""]), "long": Put("q", [b""] * (MOST_VALUES + 1)), "known": List()}
    batches.add(Put("q", [b""]), lambda answer: engine.done.append("first"))
    until(lambda: engine.done)
    batches.add(verbs[following], lambda answer: engine.done.append("second"))
    engine.commits.release()
    until(lambda: engine.done.count("begin") == 2 and "first" in engine.done)
    engine.commits.release()
    until(lambda: "second" in engine.done)
    is_early = may_go_on and following != "long"
    assert engine.done[:4] == ["begin", *(["begin", "first"] if is_early else ["first", "begin"]), "second"]
    until(lambda: batches.is_idle)
    batches.close()
