"""What can be told from a group alone: whether it is settled, has rolled, how long its slots wait after deaths."""

from __future__ import annotations

import signal

import pytest

from rpccluster.master.children import group as group_module
from rpccluster.master.children.child import HUNG, LATE, MOVING_SECONDS
from rpccluster.master.children.group import Restart
from rpccluster.master.phases import Phase
from rpccluster.system import Exit

from ..made_up import DAILY, booting, edition, group, ready, retiring

CRASHED = Exit(1, 1, None)
AT_ONCE = float("-inf")


def test_settled_means_that_nobody_comes_or_goes() -> None:
    """Every slot wanted is served, and no other has a worker left; a predecessor may still finish in its own."""
    assert group(ready(0), ready(1)).is_settled()
    assert group(ready(0), retiring(0), number_workers=1).is_settled()
    assert not group(ready(0), booting(1)).is_settled()
    assert not group(ready(0), retiring(1), number_workers=1).is_settled()
    assert not group(ready(0), number_workers=2).is_settled()
    assert not group(ready(0), ready(1), number_workers=1).is_settled()
    assert not group(ready(0), retiring(1), number_workers=1).is_settled()


def test_rolled_means_that_nobody_older_fills_a_slot() -> None:
    """Those on their way out do not count."""
    assert group(ready(0, 2), retiring(0, 1), ready(1, 1, kill_reason="x"), generation=2, number_workers=1).has_rolled()
    assert not group(ready(0, 2), ready(1, 1), generation=2).has_rolled()


def test_rolled_means_that_as_many_serve_as_are_wanted() -> None:
    """One that still boots is waited for."""
    assert not group(ready(0, 2), booting(1, 2), generation=2).has_rolled()
    assert not group(ready(0, 2), generation=2, number_workers=2).has_rolled()


def test_connections_on_their_way_hold_up_a_successor_for_a_moment() -> None:
    """From when they began to move until none does; one that nobody has room for holds up nothing for longer."""
    made = group(ready(0))
    made.note_moving(10.0, is_moving=True)
    made.note_moving(10.1, is_moving=True)
    assert made.moves_until == 10.0 + MOVING_SECONDS
    made.note_moving(10.2, is_moving=False)
    assert made.moves_until < 10.2
    made.note_moving(10.3, is_moving=True)
    assert made.moves_until == 10.3 + MOVING_SECONDS


def test_the_candidate_is_the_child_of_the_staged_edition() -> None:
    """Not one that an earlier staged edition was tried with, though its generation has the same number."""
    made = group(ready(0), staged_generation=2)
    assert made.candidate() is None
    overtaken, new = booting(0, edition=edition(2)), booting(0, edition=made.section.staged)
    made.children += [overtaken, new]
    assert made.candidate() is new
    assert [made.is_candidate(child) for child in made.children] == [False, False, True]


def dies(made, slot: int = 0, exit_: Exit = CRASHED, *, at: float = 100.0) -> float:  # type: ignore[no-untyped-def]
    """A child of ``slot`` boots and ends then; returns the pause."""
    child = booting(slot, booted_at=at - 0.1)
    made.children.append(child)
    made.note_end(child, exit_, at)
    return max(0.0, made.start_at(slot, at) - at)


def test_slots_wait_each_for_itself() -> None:
    """Deaths in one say nothing of another; the log says which, how often, and the last cause."""
    made = group(ready(1), number_workers=2)
    assert [dies(made, at=100.0 + number) for number in range(4)] == [0.0, 0.0, 1.0, 2.0]
    assert made.start_at(1, 104.0) == AT_ONCE
    assert dies(made, 1, at=105.0) == 0.0


def test_the_log_names_slot_count_and_last_cause(caplog: pytest.LogCaptureFixture) -> None:
    """Of a pause."""
    made = group(number_workers=1, restart_delay=4.0)
    for number in range(3):
        dies(made, at=100.0 + number)
    assert "Worker slot 0 died 3 times in a row (last: exit code 1): restarting it in 4 seconds" in caplog.text


def test_what_lives_long_enough_in_the_slot_ends_the_row() -> None:
    """As long as it lives, too, if it was started after those that failed."""
    made = group(ready(0, booted_at=50.0), number_workers=1)
    for number in range(4):
        dies(made, at=100.0 + number)
    assert made.start_at(0, 104.0) == 105.0
    made.children.append(ready(0, booted_at=110.0))
    assert made.start_at(0, 114.0) == 105.0
    assert made.start_at(0, 115.0) == AT_ONCE


def test_a_reload_forgives() -> None:
    """Whatever made the children die may be mended; the deaths are remembered."""
    made = group(number_workers=1)
    for number in range(4):
        dies(made, at=100.0 + number)
    made.forgive(103.5)
    assert made.start_at(0, 103.5) == AT_ONCE
    assert len(made.deaths[0]) == 4
    assert dies(made, at=104.0) == 0.0


@pytest.mark.parametrize(
    ("child", "phase", "reason", "was_asked"),
    [
        (ready(), Phase.RUNNING, "signal KILL", False),
        (ready(kill_reason=HUNG), Phase.RUNNING, "it hung", False),
        (booting(last_words="no module"), Phase.RUNNING, "no module", False),
        (retiring(retire_reason="max_requests"), Phase.RUNNING, "max_requests", True),
        (ready(kill_reason="quick stop"), Phase.QUITTING, "quick stop", True),
        (ready(), Phase.STOPPING, "signal KILL", True),
    ],
)
def test_a_death_tells_why(child, phase, reason, was_asked) -> None:  # type: ignore[no-untyped-def]
    """In the words of the child itself, of the master, or of the system; what was not asked for counts as a restart."""
    made = group(child, phase=phase)
    death = made.note_end(child, Exit(child.pid, None, signal.SIGKILL), 90.0)
    assert (death.reason, death.was_asked) == (reason.replace("signal KILL", "signal SIGKILL"), was_asked)
    assert (made.children, made.restarts.get(0, 0)) == ([], 0 if was_asked else 1)
    assert list(made.deaths[0]) == [death]


def test_a_failed_boot_is_remembered() -> None:
    """And in a new master that waits every death, which ends it."""
    made = group(booting(0, last_words="no", is_service_at_fault=True), ready(1))
    made.note_end(made.children[0], CRASHED, 90.0)
    assert (made.failure, made.failed_at, made.is_service_at_fault) == ("no", 90.0, True)
    made.note_end(made.children[0], CRASHED, 91.0)
    assert (made.failure, made.failed_at) == ("no", 90.0)
    standing_by = group(ready(0), phase=Phase.STANDBY)
    standing_by.note_end(standing_by.children[0], CRASHED, 92.0)
    assert (standing_by.failure, standing_by.failed_at) == ("exit code 1", 92.0)


def test_a_death_keeps_its_reason_in_short() -> None:
    """Twenty tracebacks of each slot would make ``status`` too long to be sent; the last one is the group's failure."""
    why = "no module named x\nTraceback:\n" + 1000 * "line\n"
    made = group(booting(0, last_words=why), booting(1, last_words=9000 * "x"))
    short, long = made.children
    assert made.note_end(short, CRASHED, 90.0).reason == "no module named x"
    assert made.failure == why
    assert made.note_end(long, CRASHED, 90.0).reason == 300 * "x"


def test_a_pause_that_is_long_over_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy asks for each slot in each turn, and hundreds of slots may have twenty deaths each."""
    made = group(booting(0), number_workers=1, restart_delay_max=8.0)
    made.note_end(made.children[0], CRASHED, 90.0)
    monkeypatch.setattr(group_module, "start_at", lambda *_: 97.0)
    assert made.start_at(0, 97.9) == 97.0
    assert made.start_at(0, 98.0) == float("-inf")


# -- what a plugin's group has more

CLEAN, KILLED = Exit(1, 0, None), Exit(1, None, signal.SIGKILL)


@pytest.mark.parametrize(
    ("restart", "exit_", "is_finished"),
    [
        (Restart.ALWAYS, CLEAN, False),
        (Restart.ALWAYS, CRASHED, False),
        (Restart.ON_FAILURE, CLEAN, True),
        (Restart.ON_FAILURE, CRASHED, False),
        (Restart.ON_FAILURE, KILLED, False),
        (Restart.NEVER, CLEAN, True),
        (Restart.NEVER, CRASHED, True),
    ],
)
def test_which_ends_are_the_last(restart: Restart, exit_: Exit, is_finished: bool) -> None:
    """A slot that has finished is settled, counts no restart, and starts anew when it is forgiven."""
    made = group(ready(0), restart=restart, number_workers=1)
    made.note_end(made.children[0], exit_, 90.0)
    assert (made.finished == {0}) is made.is_settled() is is_finished
    assert made.restarts.get(0, 0) == (0 if is_finished else 1)
    made.forgive(91.0)
    assert made.finished == set()


def test_a_slot_that_has_finished_and_is_no_longer_wanted_unsettles_nobody() -> None:
    """As after a scale down; but a process that ends in such a slot does."""
    assert group(ready(0), number_workers=1, finished={1}).is_settled()
    assert group(ready(0), number_workers=2, finished={1}).is_settled()
    assert not group(ready(0), retiring(1), number_workers=2, finished={1}).is_settled()
    assert not group(ready(0), number_workers=2, finished={2}).is_settled()


def test_an_end_that_was_asked_for_is_never_the_last() -> None:
    """One that is replaced has a successor."""
    made = group(retiring(0), restart=Restart.NEVER, number_workers=1)
    made.note_end(made.children[0], CLEAN, 90.0)
    assert made.finished == set()


@pytest.mark.parametrize("restart", [Restart.ON_FAILURE, Restart.NEVER])
def test_a_successor_that_cannot_boot_finishes_no_slot(restart: Restart) -> None:
    """Its predecessor lives on, and its own end decides."""
    made = group(ready(0), booting(0), restart=restart, number_workers=1)
    made.note_end(made.children[1], CLEAN, 90.0)
    assert made.finished == set()
    made.note_end(made.children[0], CLEAN, 91.0)
    assert made.finished == {0}


def test_an_end_with_status_0_before_ready_is_no_failure_only_where_it_is_the_last() -> None:
    """What comes after such a group goes on in both cases: it waits for a first failure at most."""
    for restart, failure in [(Restart.NEVER, ""), (Restart.ALWAYS, "exit code 0")]:
        made = group(booting(0, may_end=True), restart=restart, number_workers=1)
        made.note_end(made.children[0], CLEAN, 90.0)
        assert made.failure == failure


def test_an_essential_group_fails_too_often_at_the_fifth_failure_within_ten_minutes() -> None:
    """In all its slots; what was forgiven is forgotten."""
    made = group(number_workers=2, is_essential=True)
    for number in range(4):
        dies(made, number % 2, at=100.0 + number)
        assert not made.fails_too_often(100.0 + number)
    dies(made, at=600.0)
    assert made.fails_too_often(600.0)
    assert not made.fails_too_often(700.0)
    made.forgive(601.0)
    assert not made.fails_too_often(602.0)
    assert not group(number_workers=2).fails_too_often(600.0)


@pytest.mark.parametrize("reason", [HUNG, LATE])
def test_a_kill_for_a_fault_of_its_own_counts_for_the_cluster(reason: str) -> None:
    """Also of one that had been ready for long, which costs no pause."""
    made = group(ready(0, kill_reason=reason), number_workers=1, is_essential=True)
    death = made.note_end(made.children[0], KILLED, 90.0)
    assert (death.was_asked, death.is_failure, death.counts_for_the_cluster) == (False, False, True)


def test_a_scheduled_group_prepares_no_restart() -> None:
    """A failed run is told, and costs no pause."""
    made = group(number_workers=1, timetable=DAILY, restart=Restart.NEVER)
    for number in range(5):
        dies(made, at=100.0 + number)
    assert (made.restarts, made.finished, made.start_at(0, 104.0)) == ({}, set(), AT_ONCE)


def test_a_run_is_due_in_each_slot_that_is_free(caplog: pytest.LogCaptureFixture) -> None:
    """A run that still goes on skips the next, and says so; nothing is due where nothing may start."""
    made = group(ready(1), number_workers=2, timetable=DAILY)
    made.note_due()
    assert made.due == {0}
    assert "Worker slot 1 skips a run: the one before still goes on" in caplog.text
    for values in ({"stopped": "by hand"}, {"held_by": ["the takeover"]}, {"phase": Phase.STOPPING}):
        idle = group(number_workers=1, timetable=DAILY, **values)
        idle.note_due()
        assert idle.due == set()


def test_a_run_that_ends_with_0_at_once_is_no_failure() -> None:
    """It need not have been ready."""
    made = group(booting(0, may_end=True), number_workers=1, timetable=DAILY)
    made.note_end(made.children[0], CLEAN, 90.0)
    assert made.failure == ""
