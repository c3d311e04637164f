"""A task as the core sees it, and its states as a table. Its work is opaque to the core.

A task waits, is with a process, or pauses before it is repeated, until it has ended; it ends once. Pure; runs where a
pool is dispatched.
"""

from __future__ import annotations

import enum
from typing import Any

from rpccluster.errors import IllegalTransition

__all__ = ["Event", "State", "Task"]


class State(enum.Enum):
    """Where a task is."""

    __hash__ = object.__hash__  # that of `Enum` takes as long as the rest of a step

    WAITING = "waiting"
    SENT = "sent"  # to a process; the process's cells tell whether it has begun
    PAUSED = "paused"  # until it is repeated
    ENDED = "ended"


class Event(enum.Enum):
    """What happens to a task."""

    __hash__ = object.__hash__

    SEND = "send"
    GIVE_BACK = "give back"  # it had not begun
    PAUSE = "pause"
    RESUME = "resume"
    END = "end"


#: State and event → the next state; whatever is missing is a fault of the core.
NEXT = {
    (State.WAITING, Event.SEND): State.SENT,
    (State.WAITING, Event.END): State.ENDED,
    (State.SENT, Event.GIVE_BACK): State.WAITING,
    (State.SENT, Event.PAUSE): State.PAUSED,
    (State.SENT, Event.END): State.ENDED,
    (State.PAUSED, Event.RESUME): State.WAITING,
    (State.PAUSED, Event.END): State.ENDED,
}


class Task:
    """One task. ``work`` and ``owner`` are its edge's; ``size`` is about what it takes in a socket's buffer."""

    __slots__ = (
        "attempt",
        "id",
        "is_cancelled",
        "key",
        "number",
        "order",
        "owner",
        "priority",
        "process",
        "retries",
        "size",
        "state",
        "ticket",
        "work",
    )

    def __init__(
        self,
        id: int,
        work: Any = None,
        *,
        owner: Any = None,
        priority: int = 0,
        retries: int = 0,
        key: object = None,
        size: int = 0,
    ) -> None:
        self.id = id
        self.work = work
        self.owner = owner
        self.priority = priority
        self.retries = retries
        self.key = key
        self.size = size
        self.attempt = 1  # the present one, or the next
        self.state = State.WAITING
        self.order = 0  # its place among all that came
        self.process: Any = None  # the `Process` that it was sent to
        self.number = 0  # of its last send; the process's cells name it once the task has begun
        self.ticket = 0  # as `number` if it may be taken back; 0 if the process begins it at once
        self.is_cancelled = False

    def step(self, event: Event) -> None:
        """Go to the next state. Raises `IllegalTransition`, and changes nothing, if the state does not allow it."""
        state = NEXT.get((self.state, event))
        if state is None:
            raise IllegalTransition(f"task {self.id} is {self.state.value}, and cannot {event.value}")
        self.state = state
