"""When a dead worker may be replaced: at once, unless they die in a loop."""

from __future__ import annotations

import signal

import pytest

from rpccluster.master.restarts import EARLY_SECONDS, LONGEST_DELAY_SECONDS, Restarts
from rpccluster.system import Exit

CRASHED = Exit(1, 1, None)
SEGFAULT = Exit(1, None, signal.SIGSEGV)
KILLED = Exit(1, None, signal.SIGKILL)
TERMED = Exit(1, None, signal.SIGTERM)


def test_boots_that_fail_back_off_up_to_thirty_seconds() -> None:
    """Two are free, then the pause doubles from a second on."""
    restarts = Restarts()
    pauses = [restarts.note_death(CRASHED, None, 100.0) for _ in range(9)]
    assert pauses == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert restarts.spawn_at == 130.0


def test_the_pause_stays_bounded_for_ever() -> None:
    """However many have failed."""
    restarts = Restarts()
    for _ in range(5000):
        pause = restarts.note_death(CRASHED, None, 0.0)
    assert pause == LONGEST_DELAY_SECONDS


def test_a_worker_that_gets_ready_ends_it() -> None:
    """The service can be loaded again: the next failure is the first."""
    restarts = Restarts()
    for _ in range(5):
        restarts.note_death(CRASHED, None, 0.0)
    restarts.note_ready()
    assert restarts.note_death(CRASHED, None, 0.0) == 0.0


@pytest.mark.parametrize("exit_", [CRASHED, Exit(1, 0, None), SEGFAULT, Exit(1, None, signal.SIGABRT)], ids=str)
def test_early_deaths_of_their_own_doing_back_off(exit_: Exit) -> None:
    """Ready and dead within 5 s, again and again: that it boots does not help."""
    restarts = Restarts()
    pauses = []
    for _ in range(5):
        restarts.note_ready()
        pauses.append(restarts.note_death(exit_, EARLY_SECONDS - 0.1, 100.0))
    assert pauses == [0.0, 0.0, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("exit_", [KILLED, TERMED, Exit(1, None, signal.SIGHUP)], ids=str)
def test_workers_killed_from_outside_are_replaced_at_once(exit_: Exit) -> None:
    """However early and however often."""
    restarts = Restarts()
    assert {restarts.note_death(exit_, 0.1, 100.0) for _ in range(100)} == {0.0}
    assert restarts.spawn_at == 0.0


def test_late_deaths_are_replaced_at_once() -> None:
    """Whatever their cause."""
    restarts = Restarts()
    assert {restarts.note_death(SEGFAULT, EARLY_SECONDS, 100.0) for _ in range(100)} == {0.0}


def test_one_that_lives_on_ends_the_loop() -> None:
    """They do not die in a loop then."""
    restarts = Restarts()
    for _ in range(5):
        restarts.note_death(SEGFAULT, 1.0, 0.0)
    restarts.note_survivor()
    assert restarts.note_death(SEGFAULT, 1.0, 0.0) == 0.0


def test_a_kill_while_booting_counts() -> None:
    """It never got ready: the kernel's OOM killer may be at work."""
    restarts = Restarts()
    assert [restarts.note_death(KILLED, None, 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_a_pause_is_never_shortened() -> None:
    """A later death does not bring an earlier start."""
    restarts = Restarts()
    for _ in range(6):
        restarts.note_death(CRASHED, None, 100.0)
    assert restarts.spawn_at == 108.0
    restarts.note_ready()
    restarts.note_death(CRASHED, None, 100.0)
    assert restarts.spawn_at == 108.0
