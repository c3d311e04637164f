"""After a takeover the plugins of the old master are replaced: who is asked for what, and when."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from rpccluster.ipc.messages import GroupsReplaced, GroupStopped, Message, StopGroup
from rpccluster.master.children.deaths import Death
from rpccluster.master.children.group import Group, Overlap
from rpccluster.master.phases import Phase
from rpccluster.master.upgrade.giving_groups import GivingGroups
from rpccluster.master.upgrade.taking_groups import LOST_SECONDS, TakingGroups
from rpccluster.system import Exit, System

from ..made_up import group, ready


class MadeUpGroups:
    """The groups of a master, by their names."""

    def __init__(self, *groups: Group) -> None:
        self.all = list(groups)

    def named(self, name: str) -> Group | None:
        return next((each for each in self.all if each.name == name), None)

    def wake(self) -> None:
        pass


def plugin(name: str, *after: str, **values: Any) -> Group:
    """A group of one process, which has none yet."""
    made = group(name=name, has_begun=False, counts_at_start=False, number_workers=1, **values)
    made.after, made.overlap = after, values.get("overlap", Overlap.PREDECESSOR_FIRST)
    return made


def start(made: Group) -> None:
    """Its process is ready."""
    made.children, made.has_begun = [ready(0)], True


class Taking:
    """The new master's side of some groups, which the old master has told of."""

    def __init__(self, *groups: Group, unknown: tuple[str, ...] = ()) -> None:
        self.groups = {each.name: each for each in groups}
        self.said: list[Message] = []
        made_up: Any = MadeUpGroups(*groups)
        self.taking = TakingGroups(made_up, self.said.append)
        self.taking.begin([each.name for each in groups if each.name not in unknown])

    def says(self, now: float = 0.0, *, is_ending: bool = False) -> list[Message]:
        """What the old master is told in the next turn."""
        self.said.clear()
        self.taking.turn(now, is_ending=is_ending)
        return list(self.said)


def test_groups_are_replaced_one_at_a_time_in_the_order_of_after() -> None:
    """The next when the one before is up; then the old master is told that all is done."""
    new = Taking(plugin("b", "a"), plugin("a"))
    assert new.says() == [StopGroup("a")]
    assert new.says() == []
    assert new.groups["a"].is_theirs
    new.taking.note_stopped("a")
    assert not new.groups["a"].is_theirs
    assert new.says() == []
    start(new.groups["a"])
    assert new.says() == [StopGroup("b")]
    new.taking.note_stopped("b")
    start(new.groups["b"])
    assert new.says() == [GroupsReplaced([])]
    assert new.says() == []


@pytest.mark.parametrize("how", ["failure", "death"])
def test_one_that_fails_holds_nobody_up_and_is_named(how: str) -> None:
    """Whether it was ready for a moment or never."""
    new = Taking(plugin("a"), plugin("b"))
    assert new.says() == [StopGroup("a")]
    new.taking.note_stopped("a")
    if how == "failure":
        new.groups["a"].failure = "no such module\nand its traceback"
    else:
        new.groups["a"].deaths[0] = deque([Death(Exit(1, 1, None), 0.0, 0.0, 0.0, "no such module")])
    assert new.says() == [StopGroup("b")]
    new.taking.note_stopped("b")
    start(new.groups["b"])
    (message,) = new.says()
    assert message == GroupsReplaced([(new.groups["a"].noun, "no such module")])


def test_one_that_may_overlap_is_stopped_when_its_successor_is_up() -> None:
    """And one that does not start now, at once."""
    stopped, scheduled = plugin("stopped"), plugin("scheduled")
    scheduled.timetable = object()  # type: ignore[assignment]
    overlapping = plugin("overlapping", overlap=Overlap.SUCCESSOR_FIRST)
    stopped.stopped = "by hand"
    new = Taking(overlapping, stopped, scheduled)
    assert new.says() == [StopGroup("stopped"), StopGroup("scheduled")]
    assert not overlapping.is_theirs
    assert scheduled.is_theirs
    start(overlapping)
    assert new.says() == [StopGroup("overlapping")]


def test_one_that_the_old_master_does_not_have_is_started_at_once() -> None:
    """And the others wait for it no longer than for its end."""
    new = Taking(plugin("new", "a"), plugin("a"), unknown=("new",))
    assert not new.groups["new"].is_theirs
    assert new.says() == [StopGroup("a")]


def test_a_killed_old_master_needs_a_moment_until_all_is_gone() -> None:
    """Its processes die with it, and what they have started a moment later."""
    new = Taking(plugin("a"), plugin("b"))
    assert new.says() == [StopGroup("a")]
    new.taking.lose_old_master(100.0)
    assert new.says(100.0 + LOST_SECONDS / 2) == []
    assert new.taking.wake_at == 100.0 + LOST_SECONDS
    new.says(100.0 + LOST_SECONDS)
    assert not new.groups["a"].is_theirs
    assert not new.groups["b"].is_theirs
    assert new.taking.wake_at == float("inf")


def test_a_stop_stops_all_that_the_old_master_has() -> None:
    """Nobody waits for those that do not start any more."""
    new = Taking(plugin("a"), plugin("b"))
    assert new.says() == [StopGroup("a")]
    assert new.says(is_ending=True) == [StopGroup("b")]
    assert new.taking.has_theirs
    for name in ("a", "b"):
        new.taking.note_stopped(name)
    assert new.groups["a"].stopped == "the cluster stops"
    new.says(is_ending=True)
    assert not new.taking.has_theirs


class Giving:
    """The old master's side; its clock is made up."""

    def __init__(self, *groups: Group, names: tuple[str, ...]) -> None:
        self.now = 100.0
        system = System()
        system.monotonic = lambda: self.now  # type: ignore[method-assign]
        self.said: list[Message] = []
        made_up: Any = MadeUpGroups(*groups)
        self.giving = GivingGroups(system, made_up, self.said.append)
        self.giving.begin(names)

    def says(self) -> list[Message]:
        """What the new master is told in the next turn."""
        self.said.clear()
        self.giving.turn(self.now)
        return list(self.said)


def living(name: str) -> Group:
    made = plugin(name, phase=Phase.LEAVING)
    start(made)
    return made


def test_a_group_goes_on_until_the_new_master_asks() -> None:
    """One that it does not have ends as the workers do."""
    kept, left = living("kept"), living("left")
    old = Giving(kept, left, names=("kept",))
    assert (kept.is_lent, left.is_lent) == (True, False)
    assert old.says() == []
    old.giving.heed(StopGroup("kept"), 30.0)
    assert old.says() == []
    assert not kept.is_lent
    kept.children.clear()
    assert not old.giving.has_ended
    assert old.says() == [GroupStopped("kept")]
    assert old.giving.has_ended


def test_one_that_ends_unasked_is_told_and_not_started_again() -> None:
    """Its listener is the new master's."""
    kept = living("kept")
    old = Giving(kept, names=("kept",))
    kept.children.clear()
    assert old.says() == [GroupStopped("kept")]
    assert kept.is_lent


def test_what_has_ended_unasked_and_is_asked_for_then_wakes_nobody() -> None:
    """The two messages cross; the old master sleeps on instead of looking for a group that it has told of."""
    kept = living("kept")
    old = Giving(kept, names=("kept",))
    kept.children.clear()
    old.says()
    old.giving.heed(StopGroup("kept"), 30.0)
    assert old.says() == []
    assert old.giving.wake_at == float("inf")


def test_a_run_of_a_schedule_may_end_within_its_time() -> None:
    """Then it is stopped as others are."""
    kept = living("kept")
    kept.timetable = object()  # type: ignore[assignment]
    old = Giving(kept, names=("kept",))
    old.giving.heed(StopGroup("kept"), 30.0)
    old.says()
    assert kept.is_lent
    assert old.giving.wake_at == 130.0
    old.now = 130.0
    old.says()
    assert not kept.is_lent


def test_without_a_new_master_all_end() -> None:
    """It has died after it had taken over."""
    kept = living("kept")
    old = Giving(kept, names=("kept",))
    old.giving.end()
    assert not kept.is_lent
    assert old.giving.has_ended


def test_what_a_master_before_has_not_given_is_not_given_on() -> None:
    """Of three masters in a row the last one starts nothing before the first has ended it."""
    kept = plugin("kept")
    kept.is_theirs = True
    old = Giving(kept, names=("kept",))
    assert old.says() == []
    kept.is_theirs = False
    assert old.says() == [GroupStopped("kept")]
