"""`map` of a pool, over a made-up one."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from rpccluster.errors import TaskFailure
from rpccluster.pools.future import TaskFuture
from rpccluster.pools.mapping import mapped


class Pool:
    """Ends each task as soon as it is submitted, unless told otherwise."""

    def __init__(self) -> None:
        self.submitted: list[TaskFuture] = []
        self.cancelled: list[TaskFuture] = []
        self.options: list[dict[str, Any]] = []

    def submit(self, target: str, *args: Any, **options: Any) -> TaskFuture:
        """Submit a task that returns its arguments; 3 fails, and 99 runs for ever."""
        future = TaskFuture(len(self.submitted), self._cancel)
        self.submitted.append(future)
        self.options.append(options)
        if args[0] == 3:
            future.end(None, TaskFailure("raised"))
        elif args[0] != 99:
            future.end(args)
        return future

    def _cancel(self, future: TaskFuture) -> bool:
        self.cancelled.append(future)
        return True

    def map(self, *iterables: Any, look_ahead: int = 4, **options: Any) -> Iterator[Any]:
        """Map a target."""
        return mapped(self.submit, "a:b", iterables, look_ahead, options)


def test_results_come_in_order() -> None:
    """Of as many items as the shortest has."""
    assert list(Pool().map([0, 1, 2], "abcd", timeout=5)) == [(0, "a"), (1, "b"), (2, "c")]
    assert list(Pool().map([])) == []


def test_options_are_passed_on() -> None:
    """To each task."""
    pool = Pool()
    list(pool.map([0, 1], retries=3))
    assert pool.options == [{"retries": 3}] * 2


def test_it_looks_ahead_so_far() -> None:
    """At once, and no further: the iterable may be endless."""
    pool = Pool()
    results = pool.map(itertools.cycle([0]), look_ahead=4)
    assert len(pool.submitted) == 4
    for taken in range(1, 20):
        next(results)
        assert len(pool.submitted) == 4 + taken


def test_a_failure_comes_in_its_turn() -> None:
    """And what is behind it is cancelled."""
    pool = Pool()
    results = pool.map([0, 3, 99, 99, 99, 99])
    assert next(results) == (0,)
    with pytest.raises(TaskFailure):
        next(results)
    assert pool.cancelled == pool.submitted[2:]
    assert list(results) == []


def test_what_is_not_wanted_any_more_is_cancelled() -> None:
    """When the iterator is closed."""
    pool = Pool()
    results = pool.map([0, 99, 99])
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert pool.cancelled == pool.submitted[1:]


class Terminal(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.mark.parametrize("wish", [True, "checking"])
def test_a_bar_in_a_terminal(wish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its text, and how many are done of how many."""
    pytest.importorskip("rich")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert len(list(mapped(Pool().submit, "a:b", ([0, 1, 2],), 4, {}, wish))) == 3
    assert "3/3" in terminal.getvalue()
    assert ("a:b" if wish is True else "checking") in terminal.getvalue()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_no_bar_elsewhere(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stderr is no terminal, or rich is not installed, nothing is written."""
    output = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    if is_terminal:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    assert len(list(mapped(Pool().submit, "a:b", (iter([0, 1]),), 4, {}, True))) == 2
    assert output.getvalue() == ""
