"""The states of a worker as it sees itself, as a table. Pure; runs in the worker."""

from __future__ import annotations

import enum

from rpccluster.errors import IllegalTransition

__all__ = ["Event", "State", "next_state"]


class State(enum.Enum):
    """The state of a worker."""

    BOOTING = "booting"  # loading the service
    WAITING = "waiting"  # ready, but its master has not let it accept yet
    SERVING = "serving"  # accepting connections
    RETIRING = "retiring"  # accepts nothing new, finishes what it has
    GONE = "gone"


class Event(enum.Enum):
    """An event that may change the state of a worker."""

    BOOTED = "booted"
    MAY_ACCEPT = "may accept"
    MUST_RETIRE = "must retire"
    FINISHED = "finished"


#: A master lets a worker accept once, when it is ready, the upgrade is done, or the reload whose first worker it is has
#: come into force. It may retire it before: a reload that is overtaken or refused does not need it any more.
_TABLE = {
    (State.BOOTING, Event.BOOTED): State.WAITING,
    (State.WAITING, Event.MAY_ACCEPT): State.SERVING,
    (State.WAITING, Event.MUST_RETIRE): State.RETIRING,
    (State.SERVING, Event.MUST_RETIRE): State.RETIRING,
    (State.RETIRING, Event.MUST_RETIRE): State.RETIRING,  # a stop of the cluster overtakes a recycling
    (State.RETIRING, Event.FINISHED): State.GONE,
    (State.GONE, Event.MUST_RETIRE): State.GONE,  # while the service's last hook runs
}


def next_state(state: State, event: Event) -> State:
    """Return the state after ``event``. Raises `IllegalTransition`."""
    try:
        return _TABLE[state, event]
    except KeyError:
        raise IllegalTransition(f"found {event.value!r} in state {state.value!r}") from None
