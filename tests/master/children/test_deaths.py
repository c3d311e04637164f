"""When a dead worker may be replaced: at once, unless those of its slot die in a loop."""

from __future__ import annotations

import signal
from collections import deque

import pytest

from rpccluster.master.children.deaths import (
    EARLY_SECONDS,
    FREE_FAILURES,
    KEPT_DEATHS,
    Death,
    pause_seconds,
    start_at,
)
from rpccluster.system import Exit

DELAY, MOST = 1.0, 30.0
CRASHED = Exit(1, 1, None)
WELL = Exit(1, 0, None)
SEGFAULT = Exit(1, None, signal.SIGSEGV)
KILLED = Exit(1, None, signal.SIGKILL)
OTHERS_DOING = [Exit(1, None, each) for each in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)]
OWN_DOING = [CRASHED, SEGFAULT, *(Exit(1, None, each) for each in (signal.SIGABRT, signal.SIGALRM, signal.SIGRTMIN))]


class Life:
    """A slot whose processes are started as soon as they may be; the clock is made up."""

    def __init__(self) -> None:
        self.deaths: deque[Death] = deque(maxlen=KEPT_DEATHS)
        self.survivor = float("-inf")
        self.now = 100.0

    def ends(self, exit_: Exit, ready_for: float | None = None, *, was_asked: bool = False) -> float:
        """One is started, ends 0.1 seconds later or ``ready_for`` after it was ready; the pause that follows."""
        booted_at, ready_at = self.now, None if ready_for is None else self.now + 0.1
        self.now = round((ready_at or booted_at) + (0.1 if ready_for is None else ready_for), 3)
        self.deaths.append(Death(exit_, booted_at, ready_at, self.now, was_asked=was_asked))
        pause = round(max(0.0, self.start_at() - self.now), 3)
        self.now += pause
        return pause

    def start_at(self) -> float:
        return start_at(self.deaths, DELAY, MOST, self.survivor)


def test_the_pause_doubles_and_is_bounded_for_ever() -> None:
    """Two are free; then a second, doubled, thirty at most, however many have failed."""
    pauses = [pause_seconds(failures, DELAY, MOST) for failures in range(10)]
    assert pauses == [0.0, 0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert pause_seconds(100_000, DELAY, MOST) == MOST
    assert pause_seconds(KEPT_DEATHS, DELAY, MOST) == MOST, "what is forgotten changes nothing"


def test_the_pause_is_what_the_options_say() -> None:
    """``restart_delay`` is the first one, ``restart_delay_max`` the longest; 0 means none, after a clean end, too."""
    assert [pause_seconds(failures, 0.1, 0.3) for failures in range(7)] == [0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 0.3]
    assert {pause_seconds(failures, 1.0, 0.0) for failures in range(30)} == {0.0}
    clean = [Death(WELL, 10.0, 10.1, 10.2)]
    assert (start_at(clean, 4.0, 30.0), start_at(clean, 4.0, 0.0)) == (14.0, 10.0)


def test_boots_that_fail_back_off() -> None:
    """The same, as a slot's life; it never gives up."""
    life = Life()
    assert [life.ends(CRASHED) for _ in range(9)] == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert {life.ends(CRASHED) for _ in range(50)} == {30.0}


@pytest.mark.parametrize("exit_", OWN_DOING, ids=str)
def test_early_deaths_of_their_own_doing_back_off(exit_: Exit) -> None:
    """Ready and dead within 5 s, again and again: that it boots does not help."""
    life = Life()
    assert [life.ends(exit_, EARLY_SECONDS - 0.1) for _ in range(5)] == [0.0, 0.0, 1.0, 2.0, 4.0]


def test_failed_boots_and_early_deaths_are_one_row() -> None:
    """To get ready in between is no excuse."""
    life = Life()
    assert [life.ends(CRASHED, ready_for) for ready_for in (None, 1.0, None, 1.0)] == [0.0, 0.0, 1.0, 2.0]


@pytest.mark.parametrize("exit_", OTHERS_DOING, ids=str)
def test_who_was_ready_and_is_killed_from_outside_is_replaced_at_once(exit_: Exit) -> None:
    """However early and however often."""
    life = Life()
    assert {life.ends(exit_, 0.1) for _ in range(100)} == {0.0}


def test_late_deaths_are_replaced_at_once() -> None:
    """Whatever their cause."""
    life = Life()
    assert {life.ends(SEGFAULT, EARLY_SECONDS) for _ in range(100)} == {0.0}


def test_one_that_lives_on_ends_the_loop() -> None:
    """Whether it has ended since or not; but only if it was started after those that failed."""
    life = Life()
    for _ in range(5):
        life.ends(SEGFAULT, 1.0)
    life.survivor = 50.0
    assert life.ends(SEGFAULT, 1.0) == 8.0
    life.survivor = life.now
    life.now += 1.0
    assert life.ends(SEGFAULT, 1.0) == 0.0
    for _ in range(5):
        life.ends(SEGFAULT, 1.0)
    life.ends(SEGFAULT, EARLY_SECONDS)
    assert [life.ends(CRASHED) for _ in range(FREE_FAILURES)] == [0.0] * FREE_FAILURES


def test_a_kill_while_booting_counts() -> None:
    """It never got ready: the kernel's OOM killer may be at work."""
    life = Life()
    assert [life.ends(KILLED) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_an_end_with_status_0_is_no_failure() -> None:
    """The next start comes a second after the last start at the earliest, and that never doubles."""
    life = Life()
    assert [life.ends(WELL, 0.1) for _ in range(5)] == [0.8] * 5
    assert life.ends(WELL) == 0.9
    assert life.ends(WELL, 3.0) == 0.0
    assert life.ends(CRASHED) == 0.0


def test_what_the_master_asked_for_costs_nothing() -> None:
    """Neither a retirement nor a kill of its own; one that had lived on ends the loop."""
    life = Life()
    assert {life.ends(each, was_asked=True) for each in (WELL, KILLED, CRASHED) for _ in range(9)} == {0.0}
    for _ in range(5):
        life.ends(CRASHED)
    life.ends(WELL, EARLY_SECONDS, was_asked=True)
    assert [life.ends(CRASHED) for _ in range(FREE_FAILURES + 1)] == [0.0, 0.0, 1.0]


def test_a_kill_in_between_shortens_no_pause() -> None:
    """One that leaves slowly is killed while the slot waits."""
    life = Life()
    for _ in range(5):
        life.ends(CRASHED)
    before = life.start_at()
    life.deaths.append(Death(KILLED, 1.0, 2.0, life.now, was_asked=True))
    life.deaths.append(Death(KILLED, 1.0, 2.0, life.now))
    assert life.start_at() == before
