"""One queue: the order of its items, its groups, its limits, what is counted. Runs in the keeper; does no I/O itself.

At most one item of a group is ready or leased; the others are blocked. When that one goes, the first of them is next.
Leases and dead items are the business of `Book`, which tells a queue what becomes of an item.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Callable

from rpccluster.errors import EngineFailed, QueueFull, StaleToken
from rpccluster.queues.engine import Rules
from rpccluster.queues.head import ALL, FILL, NONE, Head
from rpccluster.queues.record import MAY_BECOME, Record, State, check_step, rank
from rpccluster.queues.store import QueueRow, Store

__all__ = ["Queue"]

_READY, _BLOCKED, _DELAYED, _LEASED, _DEAD = State
_id, _rank = attrgetter("id"), attrgetter("rank")
_MOST_GROUPS = 100_000  # of which the one that is ready or leased is known


class Queue:
    """A queue's items, apart from the dead and the delayed, which the store alone knows."""

    def __init__(self, row: QueueRow, rules: Rules, store: Store) -> None:
        self.key = row.key
        self.number = row.number
        self.name = row.name
        self.rules = rules
        self.is_paused = row.is_paused
        self.is_changed = False  # what is kept of it is not what it is now
        self._token = row.token
        self._counts = list(row.counts)
        self._bytes = row.bytes
        self._store = store
        self._head = Head(NONE if self._counts[_READY] else ALL)
        self._groups: dict[str, Record | None] = {}  # the one that is ready or leased, as far as it is known

    def row(self) -> QueueRow:
        """Return what is to be kept of the queue."""
        counts = tuple(self._counts)
        return QueueRow(self.key, self.number, self.name, self.is_paused, self._token, counts, self._bytes)

    @property
    def has_ready(self) -> bool:
        """Whether a get would get something."""
        return self._counts[_READY] > 0 and not self.is_paused

    def stats(self) -> dict[str, object]:
        """Return what `Stats` tells; blocked items count as ready."""
        ready, blocked, delayed, leased, dead = self._counts
        counts = {"ready": ready + blocked, "delayed": delayed, "leased": leased, "dead": dead}
        return {**counts, "bytes": self._bytes, "paused": self.is_paused}

    # -- limits

    def check_token(self, token: int | None) -> None:
        """Remember the highest token. Raises `StaleToken` for one below it."""
        if token is None or token == self._token:
            return
        if self._token is not None and token < self._token:
            raise StaleToken(f"the queue {self.name} has seen token {self._token}, found {token}")
        self._token = token
        self.is_changed = True

    def check_room(self, number: int, size: int) -> None:
        """Raise `QueueFull` unless so many items, of so many bytes together, may come in."""
        rules = self.rules
        if rules.max_size is not None:
            present = sum(self._counts[:_DEAD])
            if present + number > rules.max_size:
                text = f"{self.name} has {present} items of at most {rules.max_size}, found {number} more"
                raise QueueFull(text, is_for_good=number > rules.max_size)
        if rules.max_bytes is not None and self._bytes + size > rules.max_bytes:
            text = f"{self.name} has {self._bytes} bytes of at most {rules.max_bytes}, found {size} more"
            raise QueueFull(text, is_for_good=size > rules.max_bytes)

    # -- what becomes of an item

    def add(self, record: Record) -> None:
        """Take a new item in, which is delayed already or becomes ready."""
        if record.state is _DELAYED:
            self._count(_DELAYED, record.size)
            self._store.save(record)
        else:
            self._enter(record)
            self._count(record.state, record.size)

    def add_plain(self, first: int, priority: int, values: Sequence[bytes]) -> None:
        """Take new items in that are ready at once and have no group and no end, with the ids from ``first`` on.

        Those that nobody asks for soon go to the store by themselves, without a record each.
        """
        at, number, count = rank(priority, first), self.number, len(values)
        here = min(count, max(0, self._head.horizon + 1 - at))
        for place in range(here):
            value = values[place]
            record = Record(first + place, number, _READY, at + place, len(value), value)
            self._head.add(record)
            self._store.save(record)
        if here < count:
            self._store.save_plain(number, first + here, at + here, values[here:])
        self._counts[_READY] += count
        self._bytes += sum(map(len, values))
        self.is_changed = True

    def enter(self, record: Record) -> None:
        """Make an item ready, or blocked, that was delayed or dead."""
        before = record.state
        self._enter(record)
        self._recount(before, record)

    def take(self) -> Record | None:
        """Lease the first item; None when none is ready. The caller tells the lease, and saves it."""
        if not self._counts[_READY]:
            return None
        record = self._head.pop()
        while record is None:
            found = self._store.ready(self.number, self._head.horizon, FILL)
            if not found:
                raise EngineFailed(f"the queue {self.name} counts {self._counts[_READY]} ready items, and has none")
            self._head.fill(found)
            record = self._head.pop()
        record.state = _LEASED
        self._counts[_READY] -= 1
        self._counts[_LEASED] += 1
        self.is_changed = True
        if record.group is not None:
            self._groups[record.group] = record
        return record

    def give_back(self, record: Record) -> None:
        """Make a leased item ready again at its place, or blocked by a better one of its group."""
        if record.group is None and record.state is _LEASED:  # flat, since very many leases may end at once
            record.state = _READY
            if record.rank <= self._head.horizon:
                self._head.add(record)
            self._store.give_back(record)
            self._counts[_LEASED] -= 1
            self._counts[_READY] += 1
            self.is_changed = True
            return
        after = None
        if record.group is not None and self._counts[_BLOCKED]:
            after = self._store.next_of_group(self.number, record.group)
        if after is None or after.rank > record.rank:
            self._become(record, _READY)
        else:
            self._become(record, _BLOCKED)
            self._become(after, _READY)

    def put_off(self, record: Record) -> None:
        """Make a leased item delayed or dead, as ``record.until`` or ``record.error`` tell, and let its group go on."""
        self._become(record, _DELAYED if record.until is not None else _DEAD)
        self._release(record)

    def remove(self, record: Record) -> None:
        """Remove an item, whatever it is, and let its group go on."""
        state = record.state
        self._counts[state] -= 1
        self.is_changed = True
        if state is not _DEAD:
            self._bytes -= record.size
        if state is _READY:
            self._head.drop(record.id)
        self._store.remove(record)
        if record.group is not None and state in (_READY, _LEASED):
            self._release(record)

    def purge(self, number: int, leased: list[Record]) -> int:
        """Remove all but the ``leased`` items, and take another ``number``. Returns how many were removed."""
        gone = sum(self._counts) - self._counts[_LEASED]
        self._store.discard(self.number)
        self.number = number
        self._head = Head()
        self._groups.clear()
        self._counts = [len(leased) if state is _LEASED else 0 for state in State]
        self._bytes = sum(record.size for record in leased)
        for record in leased:
            record.queue = number
            self._store.save(record)
        self.is_changed = True
        return gone

    def waiting(self) -> Iterator[Record]:
        """Give all items that are ready, or blocked, in order. Nothing may change meanwhile."""
        return heapq.merge(self._each(self._store.ready), self._each(self._store.blocked), key=_rank)

    def dead(self) -> Iterator[Record]:
        """Give all dead items, in order. Nothing may change meanwhile."""
        return self._each(self._store.dead, _id)

    def _each(
        self, read: Callable[[int, int, int], list[Record]], place: Callable[[Record], int] = _rank
    ) -> Iterator[Record]:
        """Give what the store has, which is read as it is asked for: it may be much."""
        above, limit = NONE, 1
        found = read(self.number, above, limit)
        while found:
            yield from found
            limit = min(2 * limit, FILL)
            found = read(self.number, place(found[-1]), limit)

    # -- inside

    def _count(self, state: State, size: int) -> None:
        self._counts[state] += 1
        self._bytes += size
        self.is_changed = True

    def _recount(self, before: State, record: Record) -> None:
        self._counts[before] -= 1
        self._counts[record.state] += 1
        if record.state is _DEAD:
            self._bytes -= record.size
        elif before is _DEAD:
            self._bytes += record.size
        self.is_changed = True

    def _become(self, record: Record, state: State) -> None:
        before = record.state
        if state not in MAY_BECOME[before]:
            check_step(before, state)
        record.state = state
        if state is _READY:
            self._head.add(record)
            if record.group is not None:
                self._groups[record.group] = record
        elif before is _READY:
            self._head.drop(record.id)
        if state is _READY and before is _LEASED:
            self._store.give_back(record)
        else:
            self._store.save(record)
        self._recount(before, record)

    def _enter(self, record: Record) -> None:
        group = record.group
        first = None if group is None else self._first(group)
        if first is None:
            record.state = _READY
        elif first.state is _READY and record.rank < first.rank:
            record.state = _READY
            self._become(self._head.drop(first.id) or first, _BLOCKED)
        else:
            record.state = _BLOCKED
        if record.state is _READY:
            self._head.add(record)
            if group is not None:
                self._groups[group] = record
        self._store.save(record)

    def _first(self, group: str) -> Record | None:
        """Return the item of a group that is ready or leased."""
        if group in self._groups:
            return self._groups[group]
        if len(self._groups) >= _MOST_GROUPS:
            self._groups.clear()
        found = self._groups[group] = self._store.first_of_group(self.number, group)
        return found

    def _release(self, record: Record) -> None:
        """Make the next of a group ready, since the one that was has gone."""
        if record.group is None:
            return
        self._groups.pop(record.group, None)
        if self._counts[_BLOCKED]:
            after = self._store.next_of_group(self.number, record.group)
            if after is not None:
                self._become(after, _READY)
