"""What the master is doing: one of eight phases, as two tables. Data alone. Runs in the master.

`next_phase` is the first table, (phase, event) → phase: what is no row cannot happen, and raises. `Phase.allows` is the
second, phase → what it allows: whoever must know what the phase means for it asks for that permission, never for the
phase, so a new phase is a row in each table and no change elsewhere. `Cluster.note` is the one way to change the phase.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from rpccluster.errors import IllegalTransition

__all__ = ["Event", "Permissions", "Phase", "next_phase"]


class Permissions(NamedTuple):
    """What a phase allows, and what it asks for."""

    is_starting: bool = False  # a reload, upgrade or drain asked for now waits; no child that serves: the master ends
    awaits_first_boots: bool = False  # until each of the first children has booted or failed
    needs_all_children: bool = False  # one that fails ends the master: the old one serves on
    wants_children: bool = False  # those there are stay; else they retire
    starts_children: bool = False  # those that are missing, or are to be replaced
    children_accept: bool = False  # connections of their own
    connections_move: bool = False  # from one that retires to another; else they end with it
    may_change: bool = False  # a reload or an upgrade may begin; what somebody removed is made again
    hands_over: bool = False  # everything is the new master's: connections, commands, counts
    kills_children: bool = False
    ends_when_empty: bool = False  # the master, with its last child


class Phase(enum.Enum):
    """What the master is doing; ``status`` shows the value."""

    STARTING = "starting"  # the first workers boot
    JOINING = "joining"  # likewise, in a new master: the old one serves
    STANDBY = "standby"  # a new master whose workers are ready: until the old one says `Go`
    RUNNING = "running"
    DRAINED = "drained"  # WINCH: no workers until HUP, TTIN or scale; callers wait in the backlog
    LEAVING = "leaving"  # a new master has taken over: workers finish, nothing is started
    STOPPING = "stopping"  # graceful stop: workers finish, the listeners are closed
    QUITTING = "quitting"  # quick stop: workers are killed

    @property
    def allows(self) -> Permissions:
        """What this phase allows."""
        return _ALLOWS[self]


class Event(enum.Enum):
    """What changes the phase."""

    INHERITED = "started by an old master"
    BOOTED = "the first workers have booted"
    RELEASED = "the old master said Go"
    WANTED = "workers are wanted"  # a reload or `scale`, which end a drain
    DRAIN = "drain"
    TAKEN_OVER = "a new master has taken over"
    ABANDONED = "the new master has ended"  # the one that had taken over
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
        wants_children=True, starts_children=True, children_accept=True, connections_move=True, may_change=True
    ),
    Phase.DRAINED: Permissions(children_accept=True, may_change=True),
    Phase.LEAVING: Permissions(children_accept=True, connections_move=True, hands_over=True, ends_when_empty=True),
    Phase.STOPPING: Permissions(children_accept=True, ends_when_empty=True),
    Phase.QUITTING: Permissions(children_accept=True, kills_children=True, ends_when_empty=True),
}

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
    (Phase.STARTING, Event.STOP): Phase.STOPPING,
    (Phase.JOINING, Event.STOP): Phase.QUITTING,  # nobody has been served here: there is nothing to finish
    (Phase.STANDBY, Event.STOP): Phase.QUITTING,
    (Phase.RUNNING, Event.STOP): Phase.STOPPING,
    (Phase.DRAINED, Event.STOP): Phase.STOPPING,
    **{(phase, Event.QUIT): Phase.QUITTING for phase in Phase},
    # what changes nothing: it is so already, or the end goes before
    (Phase.STARTING, Event.WANTED): Phase.STARTING,
    (Phase.JOINING, Event.WANTED): Phase.JOINING,
    (Phase.STANDBY, Event.WANTED): Phase.STANDBY,
    (Phase.RUNNING, Event.WANTED): Phase.RUNNING,
    (Phase.LEAVING, Event.WANTED): Phase.LEAVING,
    (Phase.STOPPING, Event.WANTED): Phase.STOPPING,
    (Phase.QUITTING, Event.WANTED): Phase.QUITTING,
    (Phase.DRAINED, Event.DRAIN): Phase.DRAINED,
    (Phase.STOPPING, Event.DRAIN): Phase.STOPPING,
    (Phase.QUITTING, Event.DRAIN): Phase.QUITTING,
    (Phase.LEAVING, Event.STOP): Phase.LEAVING,
    (Phase.STOPPING, Event.STOP): Phase.STOPPING,
    (Phase.QUITTING, Event.STOP): Phase.QUITTING,
    (Phase.QUITTING, Event.RELEASED): Phase.QUITTING,
    (Phase.QUITTING, Event.ABANDONED): Phase.QUITTING,
}


def next_phase(phase: Phase, event: Event) -> Phase:
    """The phase that follows. Raises `IllegalTransition` if the event cannot happen in this phase."""
    try:
        return _NEXT[phase, event]
    except KeyError:
        raise IllegalTransition(f"found {event.value!r} in phase {phase.value!r}") from None
