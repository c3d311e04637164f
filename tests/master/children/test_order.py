"""Which group may start, which must stop next, and when it is over."""

from __future__ import annotations

from typing import Any

import pytest

from rpccluster.master.children.order import Finish, Halt, Started, course, held_by, is_after, phase_of
from rpccluster.master.phases import Phase

from ..made_up import DAILY, booting, group, ready, retiring


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
    assert held_by(before, groups, Phase.RUNNING) == []
    assert held_by(later, groups, Phase.RUNNING) == ["queues"]
    before.children = [ready(0)]
    assert held_by(later, groups, Phase.RUNNING) == []
    before.children, before.failure = [], "no disk"
    assert held_by(later, groups, Phase.RUNNING) == []
    assert held_by(group(after=["no such group"]), groups, Phase.RUNNING) == []


@pytest.mark.parametrize(
    "values", [{"stopped": "by hand"}, {"timetable": DAILY}, {"finished": {0}}, {"phase": Phase.DRAINED}]
)
def test_what_is_not_wanted_or_has_done_its_work_holds_nobody_up(values: dict[str, Any]) -> None:
    """It would never be ready."""
    before = group(name="plugin:a", number_workers=1, **values)
    assert held_by(group(after=["plugin:a"], has_begun=False), [before], Phase.RUNNING) == []


def test_a_new_master_starts_plugins_when_it_has_taken_over() -> None:
    """Two of one would run until then."""
    plugin = group(name="plugin:a", number_workers=1, counts_at_start=False, has_begun=False)
    assert held_by(plugin, [plugin], Phase.STANDBY) == ["the takeover"]
    assert held_by(plugin, [plugin], Phase.RUNNING) == []


def test_what_comes_after_another_may_do_so_by_a_third() -> None:
    """A circle would be a fault of the configuration, and holds nothing up here."""
    a, b, c = group(name="a", after=["c"]), group(name="b", after=["a"]), group(name="c")
    groups = [a, b, c]
    assert is_after(b, c, groups)
    assert not is_after(c, b, groups)
    assert not is_after(a, a, [group(name="a", after=["a"])])


def test_a_group_stops_when_those_after_it_have_ended() -> None:
    """Until then it goes on as before; where all end at once nobody waits."""
    before, later = group(ready(0), name="queues"), group(ready(0), name="workers", after=["queues"])
    groups = [before, later]
    assert phase_of(later, groups, Phase.STOPPING) is Phase.STOPPING
    assert phase_of(before, groups, Phase.STOPPING) is Phase.RUNNING
    assert phase_of(before, groups, Phase.QUITTING) is Phase.QUITTING
    later.children = []
    assert phase_of(before, groups, Phase.STOPPING) is Phase.STOPPING


def test_plugins_stop_after_the_workers_unless_they_come_after_them() -> None:
    """And no group waits longer than the whole stop may take, nor while a new master takes over."""
    workers, plugin = group(ready(0), name="workers"), group(ready(0), name="plugin:a", counts_at_start=False)
    groups = [workers, plugin]
    assert phase_of(workers, groups, Phase.STOPPING) is Phase.STOPPING
    assert phase_of(plugin, groups, Phase.STOPPING) is Phase.RUNNING
    assert phase_of(plugin, groups, Phase.STOPPING, is_late=True) is Phase.STOPPING
    assert phase_of(plugin, groups, Phase.LEAVING) is Phase.LEAVING
    plugin.after = ["workers"]
    assert phase_of(workers, groups, Phase.STOPPING) is Phase.RUNNING
    assert phase_of(plugin, groups, Phase.STOPPING) is Phase.STOPPING


def test_a_plugin_runs_as_usual_while_workers_boot_and_ends_no_start() -> None:
    """It may fail and be started again meanwhile; the workers alone decide."""
    workers, plugin = group(ready(0)), group(name="plugin:a", number_workers=1, counts_at_start=False, failure="x")
    plugin.phase = phase_of(plugin, [workers, plugin], Phase.STARTING)
    assert plugin.is_kept
    assert course([workers, plugin], Phase.STARTING) == Started()
    assert course([workers, plugin], Phase.JOINING) == Started()
    plugin.children, plugin.failure, plugin.has_begun = [booting(0)], "", True
    assert course([workers, plugin], Phase.STARTING) == Started()


def test_a_cluster_of_plugins_alone_starts_when_each_was_ready_or_has_failed() -> None:
    """In an upgrade they start later."""
    one = group(booting(0), name="plugin:a", counts_at_start=False)
    other = group(name="plugin:b", number_workers=1, counts_at_start=False, failure="x")
    assert course([one, other], Phase.STARTING) is None
    assert course([one, other], Phase.JOINING) == Started()
    one.children = [ready(0)]
    assert course([one, other], Phase.STARTING) == Started()
    assert course([], Phase.STARTING) == Started()


def test_what_others_use_comes_first() -> None:
    """Before workers and plugins when it starts, after them when it stops; ``after`` orders such groups among them."""
    service = group(name="pools", counts_at_start=False, comes_first=True, has_begun=False, number_workers=1)
    tasks = group(name="pool:a", after=["pools"], counts_at_start=False, comes_first=True, has_begun=False)
    workers, plugin = group(has_begun=False), group(name="plugin:a", counts_at_start=False, has_begun=False)
    groups = [workers, service, tasks, plugin]
    assert held_by(service, groups, Phase.STARTING) == []
    assert held_by(tasks, groups, Phase.STARTING) == ["pools"]
    assert held_by(workers, groups, Phase.STARTING) == held_by(plugin, groups, Phase.STARTING) == ["pools", "pool:a"]
    assert held_by(workers, groups, Phase.JOINING) == []
    service.children, tasks.children, workers.children = [ready(0)], [ready(0)], [ready(0)]
    assert phase_of(workers, groups, Phase.STOPPING) is Phase.STOPPING
    assert phase_of(service, groups, Phase.STOPPING) is phase_of(tasks, groups, Phase.STOPPING) is Phase.RUNNING
    workers.children = []
    assert phase_of(tasks, groups, Phase.STOPPING) is Phase.STOPPING
    assert phase_of(service, groups, Phase.STOPPING) is Phase.RUNNING


def test_draining_means_the_workers() -> None:
    """Other groups stay as they are."""
    assert phase_of(group(ready(0), is_drained=True), [], Phase.DRAINED) is Phase.DRAINED
    assert phase_of(group(phase=Phase.STANDBY), [], Phase.DRAINED) is Phase.RUNNING  # the drain came at once
    assert phase_of(group(ready(0)), [], Phase.DRAINED) is Phase.RUNNING


# -- the lead


def test_nobody_waits_for_a_group_that_has_not_got_the_lead() -> None:
    """Neither does a group that comes after it, nor the start of a cluster whose workers need the lead."""
    first = group(name="plugin:a", number_workers=1, needs_lead=True, unled="nobody leads", has_begun=False)
    second = group(name="plugin:b", number_workers=1, after=["plugin:a"], has_begun=False)
    assert held_by(second, [first, second], Phase.RUNNING) == []
    first.unled = ""
    assert held_by(second, [first, second], Phase.RUNNING) == ["plugin:a"]
    assert course_of(phase=Phase.STARTING, number_workers=2, unled="nobody leads", has_begun=False) == Started()
    assert course_of(phase=Phase.JOINING, number_workers=2, unled="nobody leads", has_begun=False) == Started()
