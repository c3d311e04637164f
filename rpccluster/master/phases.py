"""The phases of the master, as two tables. Data alone. Runs in the master.

The first table maps (phase, event) to the next phase; `next_phase` raises for a step that is not in it. The second maps
a phase to what it allows. Other modules ask for a permission (`Phase.allows`), never for a phase, so a new phase is a
row in each table and no change elsewhere. Only `Cluster.note` changes the phase.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from rpccluster.errors import IllegalTransition

__all__ = ["FIRST", "UNDRAINED", "Event", "Permissions", "Phase", "next_phase"]


class Permissions(NamedTuple):
    """The permissions and duties of a phase."""

    is_starting: bool = False  # a reload, upgrade or drain waits; if no child gets ready, the master ends
    awaits_first_boots: bool = False  # until each of the first children has booted or failed
    needs_all_children: bool = False  # a child that fails ends the master, and the old one serves on
    wants_children: bool = False  # present children stay; otherwise they retire
    starts_children: bool = False  # missing children are started, and overdue ones replaced
    children_accept: bool = False  # they accept connections
    connections_move: bool = False  # from a retiring child to another; otherwise they end with it
    is_listed: bool = False  # the registry lists the cluster while workers serve
    may_change: bool = False  # a reload or an upgrade may begin, and removed paths are restored
    hands_over: bool = False  # the new master gets everything: connections, commands, counts
    kills_children: bool = False
    ends_when_empty: bool = False  # the master ends with its last child


class Phase(enum.Enum):
    """The phase of the master; ``status`` shows the value."""

    STARTING = "starting"  # the first workers boot
    JOINING = "joining"  # the first workers of a new master boot, while the old one serves
    STANDBY = "standby"  # the workers of a new master are ready, until the old one sends `Go`
    RUNNING = "running"
    DRAINED = "drained"  # after WINCH: no workers until HUP, TTIN or scale; callers wait in the backlog
    DEPARTING = "departing"  # after TERM: the registry lists it no longer, and it serves until clients know
    LEAVING = "leaving"  # a new master has taken over: workers finish, and none is started
    STOPPING = "stopping"  # graceful stop: workers finish, the listeners are closed
    QUITTING = "quitting"  # quick stop: workers are killed

    allows: Permissions  # the permissions of this phase


class Event(enum.Enum):
    """An event that may change the phase."""

    INHERITED = "started by an old master"
    BOOTED = "the first workers have booted"
    RELEASED = "the old master sent Go"
    WANTED = "workers are wanted"  # by a reload or `scale`, which end a drain
    DRAIN = "drain"
    TAKEN_OVER = "a new master has taken over"
    ABANDONED = "the new master has ended"  # after it had taken over
    DEPART = "graceful stop, after a while"
    STOP = "graceful stop"
    QUIT = "quick stop"


_ALLOWS = {
    Phase.STARTING: Permissions(
        is_starting=True, awaits_first_boots=True, wants_children=True, children_accept=True, connections_move=True
    ),
    Phase.JOINING: Permissions(
        is_starting=True, awaits_first_boots=True, wants_children=True, needs_all_children=True, connections_move=True
    ),
    Phase.STANDBY: Permissions(is_starting=True, wants_children=True, needs_all_children=True, connections_move=True),
    Phase.RUNNING: Permissions(
        wants_children=True,
        starts_children=True,
        children_accept=True,
        connections_move=True,
        is_listed=True,
        may_change=True,
    ),
    Phase.DRAINED: Permissions(children_accept=True, may_change=True),
    Phase.DEPARTING: Permissions(
        wants_children=True, starts_children=True, children_accept=True, connections_move=True
    ),
    Phase.LEAVING: Permissions(children_accept=True, connections_move=True, hands_over=True, ends_when_empty=True),
    Phase.STOPPING: Permissions(children_accept=True, ends_when_empty=True),
    Phase.QUITTING: Permissions(children_accept=True, kills_children=True, ends_when_empty=True),
}

for _phase, _allowed in _ALLOWS.items():
    _phase.allows = _allowed

_NEXT = {
    (Phase.STARTING, Event.INHERITED): Phase.JOINING,
    (Phase.STARTING, Event.BOOTED): Phase.RUNNING,
    (Phase.JOINING, Event.BOOTED): Phase.STANDBY,
    (Phase.STANDBY, Event.RELEASED): Phase.RUNNING,
    (Phase.RUNNING, Event.DRAIN): Phase.DRAINED,
    (Phase.DRAINED, Event.WANTED): Phase.RUNNING,
    # the end
    (Phase.RUNNING, Event.TAKEN_OVER): Phase.LEAVING,
    (Phase.DRAINED, Event.TAKEN_OVER): Phase.LEAVING,
    (Phase.LEAVING, Event.ABANDONED): Phase.STOPPING,
    (Phase.RUNNING, Event.DEPART): Phase.DEPARTING,
    (Phase.STARTING, Event.STOP): Phase.STOPPING,
    (Phase.JOINING, Event.STOP): Phase.QUITTING,  # no call has begun here: there is nothing to finish
    (Phase.STANDBY, Event.STOP): Phase.QUITTING,
    (Phase.RUNNING, Event.STOP): Phase.STOPPING,
    (Phase.DRAINED, Event.STOP): Phase.STOPPING,
    (Phase.DEPARTING, Event.STOP): Phase.STOPPING,
    **{(phase, Event.QUIT): Phase.QUITTING for phase in Phase},
    # events that change nothing: it is so already, or the end takes precedence
    (Phase.STARTING, Event.WANTED): Phase.STARTING,
    (Phase.JOINING, Event.WANTED): Phase.JOINING,
    (Phase.STANDBY, Event.WANTED): Phase.STANDBY,
    (Phase.RUNNING, Event.WANTED): Phase.RUNNING,
    (Phase.DEPARTING, Event.WANTED): Phase.DEPARTING,
    (Phase.LEAVING, Event.WANTED): Phase.LEAVING,
    (Phase.STOPPING, Event.WANTED): Phase.STOPPING,
    (Phase.QUITTING, Event.WANTED): Phase.QUITTING,
    (Phase.DRAINED, Event.DRAIN): Phase.DRAINED,
    (Phase.DEPARTING, Event.DRAIN): Phase.DEPARTING,
    (Phase.STOPPING, Event.DRAIN): Phase.STOPPING,
    (Phase.QUITTING, Event.DRAIN): Phase.QUITTING,
    (Phase.STOPPING, Event.STOP): Phase.STOPPING,
    (Phase.QUITTING, Event.STOP): Phase.QUITTING,
    (Phase.QUITTING, Event.RELEASED): Phase.QUITTING,
    (Phase.QUITTING, Event.ABANDONED): Phase.QUITTING,
}


#: The phase of a master that has just been started.
FIRST = Phase.STARTING
#: The phase before a drain, which follows no other, and may come before a group has been told of that one.
UNDRAINED = Phase.RUNNING


def next_phase(phase: Phase, event: Event) -> Phase:
    """Return the next phase. Raises `IllegalTransition` if ``event`` cannot happen in ``phase``."""
    try:
        return _NEXT[phase, event]
    except KeyError:
        raise IllegalTransition(f"found {event.value!r} in phase {phase.value!r}") from None
