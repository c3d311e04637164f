"""The items that this process holds, from the get that has brought them to their ack.

Owns no call. Any thread may add and remove, by single steps of a dict.
"""

from __future__ import annotations

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


class Holding:
    """The items that are held, in the order in which they came."""

    def __init__(self) -> None:
        self._taken: dict[tuple[Any, int], Taken] = {}

    def __len__(self) -> int:
        return len(self._taken)

    def add(self, taken: Taken) -> None:
        """Note that an item is held; one that was brought again is held once."""
        self._taken[taken.key] = taken

    def has(self, taken: Taken) -> bool:
        """Return whether the item is held still."""
        return taken.key in self._taken

    def remove(self, taken: Taken) -> None:
        """Note that an item was acked, given back, or lost."""
        self._taken.pop(taken.key, None)

    def lanes(self) -> set[Lane]:
        """Return the lanes to which items are leased."""
        return {taken.lane for taken in list(self._taken.values())}

    def oldest(self, holder: Any) -> Taken | None:
        """Return the item that ``holder`` has held for longest; that of anybody if it holds none; None without any."""
        held = list(self._taken.values())
        return next((taken for taken in held if taken.holder == holder), held[0] if held else None)
