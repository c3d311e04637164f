"""Decides which groups may start, which must stop next, and when everything is over. Pure; runs in the master.

A group starts when all groups in its ``after`` are ready or have failed once, so that a broken group delays the others
no longer than that. It stops when all groups that come after it have ended; at a quick stop no group waits. A group
knows nothing of this order: its ``phase`` tells it what the master does with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Union

from rpccluster.master.children.group import Group
from rpccluster.master.phases import Phase

__all__ = ["Course", "Finish", "Halt", "Started", "course", "may_start", "phase_of"]


class Started(NamedTuple):
    """Every first child has booted or failed, and at least one serves."""


class Halt(NamedTuple):
    """No child could boot, or one of a new master could not: the master ends with the reason."""

    group: Group


class Finish(NamedTuple):
    """Nothing is left to wait for: the master ends."""


#: What the state of all groups means for the master.
Course = Union[Started, Halt, Finish]


def may_start(group: Group, groups: Sequence[Group]) -> bool:
    """Return whether all groups that ``group`` comes after are ready, or have failed."""
    before = [each for each in groups if each.name in group.after]
    return all(each.failure or (each.has_begun and len(each.ready()) >= each.wanted) for each in before)


def phase_of(group: Group, groups: Sequence[Group], phase: Phase) -> Phase:
    """Return the phase of ``group`` when the master is in ``phase``.

    A group keeps its phase while only other groups are drained. While the cluster stops gracefully, it keeps its phase
    as long as a group that comes after it has children.
    """
    allows = phase.allows
    if allows.wants_children or allows.kills_children:
        return phase
    if not allows.ends_when_empty:
        return phase if group.is_drained else group.phase
    has_followers = any(each.children for each in groups if group.name in each.after)
    return group.phase if has_followers else phase


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
    if any(group.is_booting() for group in groups) or not all(group.has_begun for group in groups):
        return None
    for group in groups:
        has_none = group.wanted > 0 and not group.ready()
        if has_none or (allows.needs_all_children and group.failure):
            return Halt(group)
    return Started() if allows.awaits_first_boots else None
