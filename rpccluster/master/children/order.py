"""Decides which groups may start, which must stop next, and when everything is over. Pure; runs in the master.

A group starts when all groups in its ``after`` are ready, have done their work, or have failed once, so that a broken
group delays the others no longer than that. Groups that come first (`Group.comes_first`), which others use, stand in
the ``after`` of all that do not. It stops when all groups that come after it have ended, directly or by
others. Where ``after`` says nothing, a plugin stops after the workers. One that ``stops_last`` waits for none, and no
other waits for it. At a quick stop no group waits, nor after the
time that the whole stop may take. A group knows nothing of this order: its ``phase`` tells it what the master does with
it.

The groups that count decide about a start: the workers. A plugin that cannot boot ends no start and no upgrade, so
plugins run as usual while workers boot for the first time; a new master starts them when it has taken over. In a
cluster without workers a start is over when each plugin has been ready, or has failed. Workers that need the lead do
not count where the cluster has not got it, and nobody waits for a group that does not run for this reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Union

from rpccluster.master.children.group import Group
from rpccluster.master.phases import UNDRAINED, Phase

__all__ = ["Course", "Finish", "Halt", "Started", "course", "held_by", "is_after", "phase_of"]


class Started(NamedTuple):
    """Every first child that counts has booted or failed, and at least one serves."""


class Halt(NamedTuple):
    """No child could boot, or one of a new master could not: the master ends with the reason."""

    group: Group


class Finish(NamedTuple):
    """Nothing is left to wait for: the master ends."""


#: What the state of all groups means for the master.
Course = Union[Started, Halt, Finish]


def held_by(group: Group, groups: Sequence[Group], phase: Phase) -> list[str]:
    """Return what ``group`` must wait for before it starts: names of groups, or the takeover of a new master."""
    is_joining = phase.allows.needs_all_children
    if is_joining and not group.counts_at_start:
        return ["the takeover"]
    if group.is_theirs:
        return ["the old master's process"]
    names = _after(group, groups)
    before = [each for each in groups if each.name in names and (each.counts_at_start or not is_joining)]
    return [each.name for each in before if not (each.failure or each.is_up())]


def _after(group: Group, groups: Sequence[Group]) -> set[str]:
    """Return the names of the groups that ``group`` comes directly after."""
    first = () if group.comes_first or group.stops_last else (each.name for each in groups if each.comes_first)
    return {*group.after, *first}


def is_after(group: Group, other: Group, groups: Sequence[Group]) -> bool:
    """Return whether ``group`` comes after ``other``, directly or by groups between them."""
    found, names = {group.name}, _after(group, groups)
    while names - found:
        found |= names
        names = {name for each in groups if each.name in found for name in _after(each, groups)}
    return other.name in found and other is not group


def phase_of(group: Group, groups: Sequence[Group], phase: Phase, *, is_late: bool = False) -> Phase:
    """Return the phase of ``group`` when the master is in ``phase``.

    A group keeps its phase while only other groups are drained. While the cluster stops gracefully, it keeps its phase
    as long as a group that stops before it has children, unless it ``is_late``.
    """
    allows = phase.allows
    if allows.wants_children or allows.kills_children:
        return phase
    if not allows.ends_when_empty:
        return phase if group.is_drained else UNDRAINED
    waits = not (is_late or allows.hands_over) and any(
        each.children and _stops_before(each, group, groups) for each in groups if each is not group
    )
    return group.phase if waits else phase


def _stops_before(each: Group, group: Group, groups: Sequence[Group]) -> bool:
    if group.stops_last or is_after(each, group, groups):
        return True
    return each.counts_at_start and not group.counts_at_start and not is_after(group, each, groups)


def course(groups: Sequence[Group], phase: Phase) -> Course | None:
    """Return what the state of all groups means for the master; None if nothing yet."""
    allows = phase.allows
    if allows.is_starting:
        return _start(groups, phase)
    if allows.ends_when_empty and not any(group.children for group in groups):
        return Finish()
    return None


def _start(groups: Sequence[Group], phase: Phase) -> Course | None:
    allows = phase.allows
    counting = [group for group in groups if group.counts_at_start and not group.unled]
    if any(group.is_booting() for group in counting) or not all(group.has_begun for group in counting):
        return None
    for group in counting:
        has_none = group.wanted > 0 and not group.ready()
        if has_none or (allows.needs_all_children and group.failure):
            return Halt(group)
    if not allows.awaits_first_boots:
        return None
    is_over = (
        counting
        or allows.needs_all_children
        or all(each.failure or each.is_up() for each in groups if not each.stops_last)
    )
    return Started() if is_over else None
