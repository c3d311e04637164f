"""Which group may start, which must stop next, and when it is over."""

from __future__ import annotations

from typing import Any

import pytest

from rpccluster.master.children.order import Finish, Halt, Started, course, may_start, phase_of
from rpccluster.master.phases import Phase

from ..made_up import booting, group, ready, retiring


def course_of(*workers: Any, **values: Any) -> Any:
    made = group(*workers, **values)
    found = course([made], made.phase)
    return Halt if isinstance(found, Halt) else found


# -- the start


def test_a_start_waits_for_every_boot() -> None:
    """While one boots nothing follows, whatever became of the others; nor before the first ones were started."""
    assert course_of(ready(0), booting(1), phase=Phase.STARTING) is None
    assert course_of(booting(0), phase=Phase.STARTING, failure="x", number_workers=2) is None
    assert course_of(phase=Phase.STARTING, number_workers=2, has_begun=False) is None


def test_a_start_is_over_when_all_have_booted() -> None:
    """One may have failed while another serves: the rest is a restart's affair."""
    assert course_of(ready(0), ready(1), phase=Phase.STARTING) == Started()
    assert course_of(ready(0), phase=Phase.STARTING, number_workers=2, failure="x") == Started()


def test_a_start_without_any_child_ends() -> None:
    """Exit code 3 or 4 follows from this."""
    assert course_of(phase=Phase.STARTING, number_workers=2, failure="x") is Halt
    assert course_of(phase=Phase.STARTING, number_workers=2) is Halt


def test_an_upgrade_is_all_or_nothing() -> None:
    """One child of the new master that cannot boot ends it: the old one goes on."""
    assert course_of(ready(0), phase=Phase.JOINING, number_workers=2, failure="x") is Halt
    assert course_of(ready(0), ready(1), phase=Phase.JOINING) == Started()


def test_a_new_master_waits_for_the_old_ones_word() -> None:
    """It ends if a child of its dies meanwhile."""
    assert course_of(ready(0), phase=Phase.STANDBY) is None
    assert course_of(ready(0), phase=Phase.STANDBY, failure="x") is Halt


# -- the end


@pytest.mark.parametrize("phase", [Phase.LEAVING, Phase.STOPPING, Phase.QUITTING])
def test_it_is_over_when_no_child_is_left(phase: Phase) -> None:
    """Of any group, and not before."""
    assert course_of(phase=phase, number_workers=2) == Finish()
    assert course_of(retiring(0), phase=phase) is None
    assert course([group(phase=phase), group(ready(0), phase=phase)], phase) is None


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.DRAINED])
def test_a_cluster_without_children_stays(phase: Phase) -> None:
    """WINCH keeps the master; so does a moment in which all have died."""
    assert course_of(phase=phase, number_workers=2) is None


# -- between groups


def test_a_group_starts_when_those_before_it_are_ready_or_have_failed() -> None:
    """What is broken holds the others up until its first failure, no longer."""
    before = group(booting(0), name="queues", number_workers=1)
    later = group(name="workers", after=["queues"], has_begun=False)
    groups = [before, later]
    assert may_start(before, groups)
    assert not may_start(later, groups)
    before.children = [ready(0)]
    assert may_start(later, groups)
    before.children, before.failure = [], "no disk"
    assert may_start(later, groups)
    assert may_start(group(after=["no such group"]), groups)


def test_a_group_stops_when_those_after_it_have_ended() -> None:
    """Until then it goes on as before; where all end at once nobody waits."""
    before, later = group(ready(0), name="queues"), group(ready(0), name="workers", after=["queues"])
    groups = [before, later]
    assert phase_of(later, groups, Phase.STOPPING) is Phase.STOPPING
    assert phase_of(before, groups, Phase.STOPPING) is Phase.RUNNING
    assert phase_of(before, groups, Phase.QUITTING) is Phase.QUITTING
    later.children = []
    assert phase_of(before, groups, Phase.STOPPING) is Phase.STOPPING


def test_draining_means_the_workers() -> None:
    """Other groups stay as they are."""
    assert phase_of(group(ready(0), is_drained=True), [], Phase.DRAINED) is Phase.DRAINED
    assert phase_of(group(ready(0)), [], Phase.DRAINED) is Phase.RUNNING
