"""What the rules of queues need of a place that keeps items: the interface that they are written against.

What was saved or removed may be written late, but before the store is asked for anything. Runs in the keeper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from rpccluster.queues.record import Record

__all__ = ["Answered", "QueueRow", "Store"]


class Answered(NamedTuple):
    """What a put was answered with: the ids from ``first`` on, ``number`` of them; ``seq`` is its session's number."""

    seq: int
    first: int
    number: int


class QueueRow(NamedTuple):
    """What is kept of a queue. ``number`` is what its items have, another one after each purge; ``key`` stays."""

    key: int
    number: int
    name: str
    is_paused: bool
    token: int | None
    counts: tuple[int, ...]  # of items, by state
    bytes: int


class Store(Protocol):
    """A place that keeps items, queues and what repeats are answered with."""

    # -- what the file has at the begin

    def queues(self) -> list[QueueRow]:
        """Return all queues."""

    def leased(self) -> list[Record]:
        """Return all leased items, without their values."""

    def acked(self) -> list[tuple[int, int]]:
        """Return what was acked last, oldest first."""

    def next_number(self) -> int:
        """Return a number above all that were given to items and places."""

    # -- questions

    def ready(self, queue: int, above: int, limit: int) -> list[Record]:
        """Return the first ready items of a rank above ``above``, by rank."""

    def blocked(self, queue: int, above: int, limit: int) -> list[Record]:
        """Return the first blocked items of a rank above ``above``, by rank."""

    def dead(self, queue: int, above: int, limit: int) -> list[Record]:
        """Return the first dead items with an id above ``above``, by id."""

    def find(self, id: int) -> Record | None:
        """Return an item."""

    def value(self, record: Record) -> bytes:
        """Return the value of an item."""

    def due(self, now: float, limit: int) -> list[Record]:
        """Return the first items whose delay has ended, by its end."""

    def next_due(self) -> float | None:
        """Return when the next delay ends."""

    def expired(self, now: float, limit: int) -> list[Record]:
        """Return the first items that have expired and are not leased."""

    def next_expiry(self) -> float | None:
        """Return when the next item expires that is not leased."""

    def first_of_group(self, queue: int, group: str) -> Record | None:
        """Return the one item of a group that is ready or leased."""

    def next_of_group(self, queue: int, group: str) -> Record | None:
        """Return the blocked item of a group with the lowest rank."""

    def answered(self, session: bytes) -> Answered | None:
        """Return how the last put of a session was answered."""

    def duplicate(self, key: int, dedup_id: str, now: float) -> Answered | None:
        """Return how the put with this id was answered whose window has not ended."""

    # -- changes

    def save(self, record: Record) -> None:
        """Keep an item as it is now."""

    def save_plain(self, queue: int, id: int, rank: int, values: Sequence[bytes]) -> None:
        """Keep new items that are ready, with ids and ranks from these on, and nothing else that is special."""

    def lease(self, record: Record) -> None:
        """Keep that an item is leased which was ready, or for how long, if nothing else of it has changed."""

    def give_back(self, record: Record) -> None:
        """Keep that an item is ready again which was leased, at its place, and with the error of that attempt."""

    def remove(self, record: Record) -> None:
        """Keep an item no more."""

    def save_queue(self, row: QueueRow) -> None:
        """Keep a queue as it is now."""

    def discard(self, queue: int) -> None:
        """Remove all items of a queue's number, some time; no question finds them from now on."""

    def save_answered(self, session: bytes, answered: Answered, now: float) -> None:
        """Keep how the last put of a session was answered."""

    def save_duplicate(self, key: int, dedup_id: str, until: float, answered: Answered) -> None:
        """Keep how a put with an id was answered."""

    def save_acked(self, pairs: list[tuple[int, int]]) -> None:
        """Keep what was acked in this batch."""

    def save_next_number(self, number: int) -> None:
        """Keep a number above all that were given."""
