"""The watch over loops, on made-up loops: what it tells, counts and sets; and how it names a place."""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from array import array
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from rpccluster.ipc.scoreboard import ROW_CELLS, CommonCell, Row
from rpccluster.testing import wait_until
from rpccluster.worker.native.held_up import Stack, stack_of
from rpccluster.worker.native.primitives import thread_id
from rpccluster.worker.native.stall_watch import LATE_SECONDS, StallWatch
from rpccluster.worker.native.watched import Turn
from worker.rig import Rig

WARNING_SECONDS = 0.02


class MadeUpLoop:
    """A loop in the thread of the test, whose turn is what the test says."""

    name = "The made-up loop"
    looks = 1

    def __init__(self) -> None:
        self.thread_id = thread_id()
        self.present: Turn | None = None
        self.looked_at = 0

    def turn(self, frame: FrameType) -> Turn | None:
        self.looked_at += 1
        return self.present

    def wait_for_looks(self, count: int) -> None:
        """Wait until it was looked at ``count`` times more."""
        enough = self.looked_at + count
        wait_until(lambda: self.looked_at >= enough)


class Watch:
    """A watch with all that it needs."""

    def __init__(self, warning: float = WARNING_SECONDS) -> None:
        self.loop = MadeUpLoop()
        self.options: Any = Rig().options
        self.options.set(stall_warning=warning)
        self.row = Row(memoryview(array("Q", [0] * ROW_CELLS)))
        self.set_at: list[int] = []
        timer: Any = SimpleNamespace(set=self.set_at.append)
        self.watch = StallWatch([self.loop], self.options, self.row, timer)

    @property
    def stalls(self) -> int:
        return self.row[CommonCell.STALLS]


@pytest.fixture
def made() -> Any:
    """Makes watches, and ends them."""
    watches: list[Watch] = []

    def make(**options: float) -> Watch:
        watches.append(Watch(**options))
        return watches[-1]

    yield make
    for each in watches:
        each.watch.stop()


def test_a_turn_that_lasts_is_told_and_counted_once(made: Any, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is looked at; the next one counts, and its line waits for a minute."""
    watch = made()
    watch.watch.start()
    watch.loop.wait_for_looks(2)
    assert watch.stalls == 0
    with caplog.at_level(logging.WARNING, "rpccluster"):
        watch.loop.present = Turn(1.0, 0.5)
        watch.loop.wait_for_looks(3)
        assert watch.stalls == 1
        watch.loop.present = Turn(2.0, 0.5)
        watch.loop.wait_for_looks(3)
    assert watch.stalls == 2
    (line,) = [record.getMessage() for record in caplog.records if "held up" in record.getMessage()]
    assert line.startswith("The made-up loop is held up, for 0.50 s so far, by code of no method at ")


def test_a_turn_is_looked_at_again_just_when_it_has_lasted_too_long(made: Any) -> None:
    """Not at the next look that is due."""
    watch = made(warning=5.0)
    watch.loop.present = Turn(1.0, 4.99)
    began = time.monotonic()
    watch.watch.start()
    watch.loop.wait_for_looks(2)
    assert time.monotonic() - began < 5.0


def test_the_timer_is_set_ahead_and_never_fires_after_the_stop(made: Any) -> None:
    """So the master tells what the watch cannot."""
    watch = made(warning=1.0)
    watch.watch.start()
    wait_until(lambda: watch.set_at)
    ahead = watch.set_at[0] - time.monotonic_ns()
    assert 0 < ahead <= (1.0 + LATE_SECONDS) * 1e9
    watch.watch.stop()
    wait_until(lambda: watch.set_at[-1] > time.monotonic_ns() + 3600 * 10**9)


def test_it_is_turned_off_and_on_while_it_runs(made: Any) -> None:
    """Off, nobody looks, and the master is not told either."""
    watch = made(warning=0.0)
    watch.watch.start()
    watch.loop.present = Turn(1.0, 100.0)
    watch.options.set(stall_warning=WARNING_SECONDS)
    wait_until(lambda: watch.stalls == 1)
    watch.options.set(stall_warning=0.0)
    wait_until(lambda: watch.set_at[-1] > time.monotonic_ns() + 3600 * 10**9)
    looked_at = watch.loop.looked_at
    watch.options.set(stall_warning=WARNING_SECONDS)
    wait_until(lambda: watch.loop.looked_at > looked_at)
    assert watch.stalls == 1


def test_a_watch_that_could_not_look_counts(made: Any) -> None:
    """The master has told it; nothing is held up any more."""
    watch = made()
    watch.watch._look(WARNING_SECONDS, LATE_SECONDS + 0.1)
    assert watch.stalls == 1
    watch.watch._look(WARNING_SECONDS, LATE_SECONDS - 0.1)
    assert watch.stalls == 1


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="its frames are not counted")
def test_a_look_leaves_nothing_to_collect(made: Any) -> None:
    """It has the frames of all threads, its own among them, which would keep what the service's code holds."""
    watch, code = made(), StallWatch._look.__code__
    watch.watch.stop()
    wait_until(lambda: not watch.watch.is_running)
    gc.collect()
    gc.disable()
    try:
        watch.watch._look(WARNING_SECONDS, 0.0)
        assert not [each for each in gc.get_objects() if isinstance(each, FrameType) and each.f_code is code]
    finally:
        gc.enable()


def test_a_place_is_named_by_the_line_of_the_service_and_the_innermost_one() -> None:
    """What the service calls may be deep in other code."""
    stacks: list[Stack] = []

    class Value(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            stacks.append(stack_of(sys._getframe()))
            return super().items()

    json.dumps([Value(a=1)], indent=1)
    (stack,) = stacks
    assert stack.innermost.function == "items"
    assert stack.innermost.file == __file__
    assert stack.own is not None
    assert stack.method == ""
    assert str(stack).startswith("code of no method at ")
