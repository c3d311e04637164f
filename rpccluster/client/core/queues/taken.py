"""The items that this process holds, from the get that has brought them to their ack.

Owns no call. Any thread may add and remove, by single steps of a dict.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from rpccluster.client.core.queues.lanes import Lane

__all__ = ["Dead", "Holding", "Peeked", "Taken"]


class Taken:
    """One item, leased to the session of ``lane``. ``holder`` is the thread or task that has got it."""

    __slots__ = ("attempt", "holder", "id", "lane", "value")

    def __init__(self, id: Any, attempt: int, value: Any, lane: Lane, holder: Any = None) -> None:
        self.id = id
        self.attempt = attempt
        self.value = value
        self.lane = lane
        self.holder = holder

    @property
    def key(self) -> tuple[Any, int]:
        """The item's id and the attempt, by which the keeper knows the lease."""
        return self.id, self.attempt


class Peeked(NamedTuple):
    """An item that is ready, as `peek` shows it; ``attempt`` is that of its last lease, 0 before the first."""

    id: Any
    attempt: int
    value: Any


class Dead(NamedTuple):
    """An item that has used up its attempts, with the error of the last one."""

    id: Any
    attempts: int
    value: Any
    error: str | None


class Holding(dict[tuple[Any, int], Taken]):
    """The items that are held, by their keys, in the order in which they came."""

    def change(self, came: Iterable[Taken], gone: Iterable[Taken]) -> None:
        """Note that items are held, and that others were acked, given back, or lost; one brought again is held once."""
        for taken in came:
            self[taken.id, taken.attempt] = taken
        for taken in gone:
            self.pop((taken.id, taken.attempt), None)

    def has(self, taken: Taken) -> bool:
        """Return whether the item is held still."""
        return taken.key in self

    def lanes(self) -> set[Lane]:
        """Return the lanes to which items are leased."""
        return {taken.lane for taken in list(self.values())}

    def oldest(self, holder: Any) -> Taken | None:
        """Return the item that ``holder`` has held for longest; that of anybody if it holds none; None without any."""
        held = list(self.values())
        return next((taken for taken in held if taken.holder == holder), held[0] if held else None)
