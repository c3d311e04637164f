"""An item as it is kept, its states, and where it stands in the order of its queue. Runs in the keeper; does no I/O."""

from __future__ import annotations

from enum import IntEnum

from rpccluster.errors import IllegalTransition

__all__ = ["HIGHEST", "MAY_BECOME", "Record", "State", "check_step", "rank"]

HIGHEST = 9  # the priority that goes first
_PLACES = 1 << 56


class State(IntEnum):
    """Where an item is. The numbers stand in files."""

    READY = 0
    BLOCKED = 1  # another one of its group is ready or leased
    DELAYED = 2
    LEASED = 3
    DEAD = 4


#: What each state may become. All but a leased item may also be removed; a leased one by its holder's ack alone.
MAY_BECOME: dict[State, frozenset[State]] = {
    State.READY: frozenset({State.LEASED, State.BLOCKED}),
    State.BLOCKED: frozenset({State.READY}),
    State.DELAYED: frozenset({State.READY, State.BLOCKED}),
    State.LEASED: frozenset({State.READY, State.BLOCKED, State.DELAYED, State.DEAD}),
    State.DEAD: frozenset({State.READY, State.BLOCKED}),
}


def check_step(before: State, after: State) -> None:
    """Raise `IllegalTransition` unless an item may go from one state to the other."""
    if after not in MAY_BECOME[before]:
        raise IllegalTransition(f"an item that is {before.name} cannot become {after.name}")


def rank(priority: int, place: int) -> int:
    """Return the number by which ready items are sorted: by priority, then by place."""
    return (HIGHEST - priority) * _PLACES + place


class Record:
    """An item. ``queue`` is the number of its queue; times are seconds of the engine's `Timescale`."""

    __slots__ = (
        "attempt",
        "error",
        "expires",
        "forgiven",
        "group",
        "id",
        "is_kept",
        "queue",
        "rank",
        "seq",
        "session",
        "size",
        "state",
        "until",
        "value",
    )

    def __init__(
        self,
        id: int,
        queue: int,
        state: State,
        rank: int,
        size: int,
        value: bytes | None,
        group: str | None = None,
        expires: float | None = None,
        until: float | None = None,
        attempt: int = 0,
        forgiven: int = 0,
        session: bytes | None = None,
        seq: int | None = None,
        error: str | None = None,
        is_kept: bool = False,
    ) -> None:
        self.id = id
        self.queue = queue
        self.state = state
        self.rank = rank
        self.size = size
        self.value = value  # None: it has to be read from the file
        self.group = group
        self.expires = expires
        self.until = until  # the end of its lease, or of its delay
        self.attempt = attempt  # the number of the last one; they begin at 1
        self.forgiven = forgiven  # attempts that do not count
        self.session = session  # that of its lease
        self.seq = seq  # the number of the get that has taken it
        self.error = error
        self.is_kept = is_kept  # whether the file has it

    @property
    def counted(self) -> int:
        """How many attempts count."""
        return self.attempt - self.forgiven

    def go_to_the_end(self, place: int) -> None:
        """Take the last place of its priority."""
        self.rank = self.rank // _PLACES * _PLACES + place
