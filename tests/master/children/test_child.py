"""A child as its master sees it: the table of its states, its silence, its memory, its retirement."""

from __future__ import annotations

import itertools

import pytest

from rpccluster.errors import IllegalTransition
from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.master.children.child import HUNG, ChildEvent, ChildState, Overdue

from ..made_up import booting, ready, retiring

ALLOWED = {
    (ChildState.BOOTING, ChildEvent.BOOTED): ChildState.READY,
    (ChildState.BOOTING, ChildEvent.CALLED_OFF): ChildState.RETIRING,
    (ChildState.READY, ChildEvent.TOLD_TO_RETIRE): ChildState.RETIRING,
    (ChildState.RETIRING, ChildEvent.TOLD_TO_RETIRE): ChildState.RETIRING,
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(ChildState, ChildEvent)))
def test_every_event_in_every_state(state: ChildState, event: ChildEvent) -> None:
    """The allowed ones lead where they should, the others raise and change nothing."""
    worker = booting(state=state)
    if (state, event) in ALLOWED:
        worker.step(event)
        assert worker.state is ALLOWED[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"found '{event.value}' in state '{state.value}'"):
            worker.step(event)
        assert worker.state is state


def test_silence_begins_with_the_last_sign_of_life() -> None:
    """Which tells its own time; with the birth, as long as there was none."""
    worker = booting(booted_at=7.0, silent_since=0.0)
    assert worker.silent_since == 7.0
    worker.row[CommonCell.HEARTBEAT] = 12_500_000_000
    assert worker.silent_since == 12.5


def test_silence_that_the_master_could_not_watch_does_not_count() -> None:
    """A master that was stopped blames nobody."""
    worker = ready(silent_since=10.0)
    worker.excuse(3600.0)
    assert worker.silent_since == 3600.0
    worker.row[CommonCell.HEARTBEAT] = 3601_000_000_000
    assert worker.silent_since == 3601.0


def test_memory_above_the_limit_is_a_reason() -> None:
    """Once; the limit itself is allowed."""
    worker = ready()
    worker.row[CommonCell.RSS_BYTES] = 1000
    worker.look_at_memory(10.0, 1000)
    assert worker.overdue is None
    worker.look_at_memory(11.0, 999)
    worker.look_at_memory(12.0, 999)
    assert worker.overdue == Overdue(11.0, "max_memory")


def test_memory_replaces_nobody_who_has_just_become_ready() -> None:
    """Where the limit is below what a fresh worker needs they would boot without end."""
    worker = ready(ready_at=100.0)
    worker.row[CommonCell.RSS_BYTES] = 1000
    worker.look_at_memory(100.5, 999)
    assert (worker.overdue, worker.is_fresh(100.5), worker.is_fresh(101.0)) == (None, True, False)
    worker.look_at_memory(109.9, 999)
    assert worker.overdue is None
    worker.look_at_memory(110.0, 999)
    assert worker.overdue == Overdue(110.0, "max_memory")
    assert not booting().is_fresh(0.0)


def test_the_first_reason_stays() -> None:
    """The longest overdue goes first: asking twice must not put a worker back."""
    worker = ready()
    worker.want_recycling(5.0, "max_requests")
    worker.want_recycling(3.0, "SIGTERM")
    assert worker.overdue == Overdue(5.0, "max_requests")


def test_a_retirement_told_twice_ends_at_the_earlier_time() -> None:
    """A stop may hurry a worker, never give it more time."""
    worker = ready()
    worker.note_retirement("max_requests", 10.0, 40.0)
    worker.note_retirement("stopping", 20.0, 50.0)
    assert (worker.kill_at, worker.retire_reason) == (40.0, "stopping")
    worker.note_retirement("stopping", 20.0, 30.0)
    assert worker.kill_at == 30.0
    assert worker.retired_at == 10.0


def test_a_booting_worker_cannot_be_told_to_retire() -> None:
    """It raises and notes nothing."""
    worker = booting()
    with pytest.raises(IllegalTransition):
        worker.note_retirement("x", 0.0, 1.0)
    assert (worker.state, worker.kill_at, worker.retire_reason) == (ChildState.BOOTING, None, "")


@pytest.mark.parametrize(
    ("worker", "serves", "holds", "expected"),
    [
        (booting(), False, True, False),
        (ready(), True, True, False),
        (ready(questioned_at=1.0), False, False, False),
        (ready(kill_reason=HUNG), False, False, False),
        (ready(kill_reason="quick stop"), False, False, True),
        (booting(kill_reason="scaled down"), False, False, True),
        (booting(kill_reason=HUNG), False, False, False),
        (retiring(), False, False, True),
        (retiring(kill_reason=HUNG), False, False, True),
    ],
)
def test_what_a_worker_counts_for(worker, serves, holds, expected) -> None:  # type: ignore[no-untyped-def]
    """Whether it serves, fills its slot, and whether its end would be the master's own wish."""
    assert (worker.is_ready, worker.is_holding, worker.is_expected_to_end) == (serves, holds, expected)
