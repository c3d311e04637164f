"""The states of a connection as its worker sees it: a table, with the reason of each transition.

Pure; runs in the worker. `rpccluster.worker.connections.connection` acts on the transitions.
"""

from __future__ import annotations

import enum

from rpccluster.errors import IllegalTransition

__all__ = ["TRANSITIONS", "Event", "State", "next_state"]


class State(enum.Enum):
    """The state of a connection."""

    ENTERING = "entering"  # its peer has to pass the challenge before it is read and answered
    OPEN = "open"  # read and answered
    HALF_CLOSED = "half closed"  # its peer sends nothing more; what it has sent is answered
    ENDING = "ending"  # we read nothing more; what was read is answered
    LINGERING = "lingering"  # all is answered, and we have said so: the peer's end is awaited
    MOVED = "moved"  # another process has it; replies of calls that still run here follow it
    CLOSED = "closed"  # nobody has it; replies of calls that still run are dropped and counted


class Event(enum.Enum):
    """An event that may change the state of a connection."""

    ADMITTED = "admitted"
    TURNED_AWAY = "turned away"
    PEER_ENDED = "peer ended"
    MUST_END = "must end"
    ANSWERED = "answered"
    GIVEN = "given"
    BROKEN = "broken"


#: Where each event leads, and why.
TRANSITIONS = {
    (State.ENTERING, Event.ADMITTED): (State.OPEN, "its peer has passed the challenge, or need not"),
    (State.ENTERING, Event.TURNED_AWAY): (State.LINGERING, "closing over unread input would reset the refusal"),
    (State.ENTERING, Event.PEER_ENDED): (State.CLOSED, "it will never pass"),
    (State.ENTERING, Event.MUST_END): (State.CLOSED, "the whole cluster stops, and none of its calls was read"),
    (State.ENTERING, Event.GIVEN): (State.MOVED, "nothing was proved yet: the adopter begins anew"),
    (State.ENTERING, Event.BROKEN): (State.CLOSED, "reset, or it answers no more"),
    (State.OPEN, Event.PEER_ENDED): (State.HALF_CLOSED, "after end-of-file its running calls are still answered"),
    (State.OPEN, Event.MUST_END): (State.ENDING, "the whole cluster stops: what was read is answered, no more"),
    (State.OPEN, Event.GIVEN): (State.MOVED, "its worker retires, or has more than its share"),
    (State.OPEN, Event.BROKEN): (State.CLOSED, "reset, a deadline passed, or no MessagePack-RPC"),
    (State.HALF_CLOSED, Event.MUST_END): (State.HALF_CLOSED, "it ends by itself, as soon as all is answered"),
    (State.HALF_CLOSED, Event.ANSWERED): (State.CLOSED, "neither side has anything more to say"),
    (State.HALF_CLOSED, Event.GIVEN): (State.MOVED, "its calls may outlast the worker; the adopter answers them"),
    (State.HALF_CLOSED, Event.BROKEN): (State.CLOSED, "reset, or its replies were left unread for too long"),
    (State.ENDING, Event.MUST_END): (State.ENDING, "told twice: a stop of the cluster that is said again"),
    (State.ENDING, Event.ANSWERED): (State.LINGERING, "closing over unread input would reset the last replies"),
    (State.ENDING, Event.BROKEN): (State.CLOSED, "reset, or its replies were left unread for too long"),
    (State.LINGERING, Event.MUST_END): (State.LINGERING, "the end has been said already"),
    (State.LINGERING, Event.PEER_ENDED): (State.CLOSED, "the peer has noticed that we have finished"),
    (State.LINGERING, Event.BROKEN): (State.CLOSED, "reset, or the peer took too long to notice"),
}


def next_state(state: State, event: Event) -> State:
    """Return the state after ``event``. Raises `IllegalTransition`."""
    try:
        return TRANSITIONS[state, event][0]
    except KeyError:
        raise IllegalTransition(f"found {event.value!r} in state {state.value!r}") from None
