"""The plugins of an old master after a takeover: each goes on until the new master asks for it. Runs in the old master.

`rpccluster.master.upgrade.taking_groups` is the other side. A group that the new master has, too, keeps its processes,
but gets no new ones. When the new master sends `StopGroup`, they are stopped as ever; a run of a schedule may end
first, within ``graceful_timeout``. When nothing of the group is left, `GroupStopped` says so, whatever has ended it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from rpccluster.ipc.messages import GroupStopped, Message, StopGroup
from rpccluster.master.children.group import Group
from rpccluster.master.kinds.groups import Groups
from rpccluster.system import System

__all__ = ["GivingGroups"]


class GivingGroups:
    """The groups of an old master that a new one takes."""

    def __init__(self, system: System, groups: Groups, say: Callable[[Message], None]) -> None:
        """``say`` sends a message to the new master."""
        self._system = system
        self._groups = groups
        self._say = say
        self._untold: set[str] = set()  # the new master waits for the end of these
        self._stop_at: dict[str, float] = {}  # when a run that goes on is stopped

    def names(self) -> list[str]:
        """Return the names of the groups that there are; `Go` says so."""
        return [group.name for group in self._groups.all if not group.counts_at_start]

    def begin(self, names: Collection[str]) -> None:
        """Keep the groups of ``names``, since the new master, which has taken over, will ask for each."""
        for group in self._groups.all:
            if group.name in names and not group.counts_at_start:
                group.is_lent = True
                self._untold.add(group.name)

    def heed(self, message: StopGroup, graceful_seconds: float) -> None:
        """Stop a group, or let its scheduled run end within ``graceful_seconds``. One that has ended has been told."""
        group = self._groups.named(message.name)
        if group is not None and group.is_lent and group.name in self._untold:
            self._stop_at[group.name] = self._system.monotonic() + (graceful_seconds if group.is_scheduled else 0.0)

    def turn(self, now: float) -> None:
        """Stop what has had its time, and tell the new master of each group that has ended."""
        for name in sorted(self._untold):
            group = self._groups.named(name)
            if group is not None and now >= self._stop_at.get(name, float("inf")):
                group.is_lent = False
                self._groups.wake()
                del self._stop_at[name]
            if group is None or _has_ended(group):
                self._stop_at.pop(name, None)
                self._untold.remove(name)
                self._say(GroupStopped(name))

    def end(self) -> None:
        """Stop all groups, since there is no new master any more."""
        self._untold.clear()
        self._stop_at.clear()
        for group in self._groups.all:
            group.is_lent = False
        self._groups.wake()

    @property
    def has_ended(self) -> bool:
        """Whether the new master waits for no group."""
        return not self._untold

    @property
    def wake_at(self) -> float:
        """When `turn` must be called (monotonic seconds); infinity if only an event counts."""
        return min(self._stop_at.values(), default=float("inf"))


def _has_ended(group: Group) -> bool:
    """Return whether nothing of ``group`` lives, here or in a master before this one."""
    return not group.children and not group.is_theirs
