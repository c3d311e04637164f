"""The plugins of a new master after its takeover: each is restarted once, so that it has the new code. Runs in the new
master.

`rpccluster.master.upgrade.giving_groups` is the other side. Until the takeover no plugin is started. Then:

- a group whose processes must not overlap is stopped by the old master, and started here when `GroupStopped` has come:
  one group at a time, in the order of ``after``, the next when the one before is up or could not get ready;
- a group that may overlap is started here, and stopped there when it is up or could not get ready;
- a group that starts nothing now is stopped there at once: it was stopped by hand, or waits for its schedule;
- a group that the old master does not have is started.

If the old master is killed its processes die with it, but not in the same moment: then the rest starts a little later.
When all have had their turn `GroupsReplaced` tells the old master, whose client may wait for that, which have failed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection

from rpccluster.ipc.messages import GroupsReplaced, Message, StopGroup
from rpccluster.master.children.deaths import in_short
from rpccluster.master.children.group import Group, Overlap
from rpccluster.master.kinds.groups import Groups

__all__ = ["ENDING", "TakingGroups"]

ENDING = "the cluster stops"
LOST_SECONDS = 2.0  # from the death of the old master to that of all its processes: its warden needs less


class Step(enum.Enum):
    """How far a group is."""

    THEIRS = "the old master has its processes"
    STOPPING = "the old master was asked to stop them"
    STARTING = "its processes start here"


class TakingGroups:
    """The groups that a new master takes from the old one."""

    def __init__(self, groups: Groups, say: Callable[[Message], None]) -> None:
        """``say`` sends a message to the old master."""
        self._groups = groups
        self._say = say
        self._steps: dict[str, Step] = {}
        self._overlapping: set[str] = set()  # to be stopped there when they are up here
        self._taken: list[str] = []
        self._replaced = ""  # the group that is just being replaced, while others wait
        self._is_ending = False
        self._lost_at: float | None = None  # when the old master has ended

    def names(self) -> list[str]:
        """Return the names of the groups that are taken; `TookOver` says so."""
        return [group.name for group in self._groups.all if not group.counts_at_start]

    def begin(self, theirs: Collection[str]) -> None:
        """Take the groups; the old master has those named ``theirs``."""
        for group in self._groups.all:
            if group.counts_at_start:
                continue
            self._taken.append(group.name)
            self._steps[group.name] = Step.STARTING
            if group.name not in theirs:
                continue
            if group.overlap is Overlap.SUCCESSOR_FIRST and group.wants_children:
                self._overlapping.add(group.name)
            else:
                group.is_theirs = True
                self._steps[group.name] = Step.THEIRS

    def note_stopped(self, name: str) -> None:
        """Note that nothing of a group is left in the old master."""
        group, step = self._groups.named(name), self._steps.get(name)
        if group is not None:
            group.is_theirs = False
            if self._is_ending:
                group.stopped = group.stopped or ENDING
            self._groups.wake()
        if step in (Step.THEIRS, Step.STOPPING):
            self._steps[name] = Step.STARTING

    def lose_old_master(self, now: float) -> None:
        """Note that the old master has ended."""
        self._lost_at = now

    def turn(self, now: float, *, is_ending: bool) -> None:
        """Do what follows from the state of the groups. ``is_ending`` says that this master wants none any more."""
        self._is_ending = is_ending
        if not self._steps:
            return
        if self._lost_at is not None and now >= self._lost_at + LOST_SECONDS:
            for name in [name for name, step in self._steps.items() if step is not Step.STARTING]:
                self.note_stopped(name)
        for name, step in list(self._steps.items()):
            group = self._groups.named(name)
            if step is Step.STARTING and (group is None or is_ending or group.is_up() or _why_down(group)):
                self._finish(name)
        for name in self._to_stop(is_ending=is_ending):
            self._steps[name] = Step.STOPPING
            self._say(StopGroup(name))
        if not self._steps:
            self._say(GroupsReplaced(self._failures()))

    def _finish(self, name: str) -> None:
        del self._steps[name]
        if name in self._overlapping:
            self._overlapping.remove(name)
            self._say(StopGroup(name))

    def _to_stop(self, *, is_ending: bool) -> list[str]:
        """Return the groups that the old master is to stop now."""
        waiting = [(name, self._groups.named(name)) for name, step in self._steps.items() if step is Step.THEIRS]
        at_once = [name for name, group in waiting if group is None or is_ending or not group.wants_children]
        if at_once or self._replaced in self._steps:
            return at_once
        self._replaced = next((name for name, group in waiting if group is not None and self._may_go(group)), "")
        return [self._replaced] if self._replaced else []

    def _may_go(self, group: Group) -> bool:
        """Return whether the groups that ``group`` comes after have had their turn."""
        return not any(name in self._steps for name in group.after)

    def _failures(self) -> list[tuple[str, str]]:
        found = (self._groups.named(name) for name in self._taken)
        return [(each.noun, in_short(_why_down(each))) for each in found if each is not None and not each.is_up()]

    @property
    def has_theirs(self) -> bool:
        """Whether the old master still has processes that this one waits for."""
        return any(step is not Step.STARTING for step in self._steps.values())

    @property
    def wake_at(self) -> float:
        """When `turn` must be called (monotonic seconds); infinity if only an event counts."""
        if self._lost_at is None or not self.has_theirs:
            return float("inf")
        return self._lost_at + LOST_SECONDS


def _why_down(group: Group) -> str:
    """Return why the group has failed to get ready, or has just ended again; empty if it has not."""
    ends = [death.reason for deaths in group.deaths.values() for death in deaths if not death.was_asked]
    return group.failure or "".join(ends[-1:])
