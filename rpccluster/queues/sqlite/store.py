"""Items, queues and answers in a SQLite file: what is to change is gathered, and written before the next question.

So an item that comes and goes within one batch is never written. Runs in the keeper; knows no rule of queues.
"""

from __future__ import annotations

import itertools
import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from rpccluster.queues.record import Record, State
from rpccluster.queues.repeats import MOST_ACKED
from rpccluster.queues.sqlite.schema import COLUMNS, INLINE_BYTES
from rpccluster.queues.store import Answered, QueueRow

__all__ = ["SQLiteStore"]

#: Rows that one statement concerns if the same becomes of them: of each it costs half as much then.
_TOGETHER = 20


def _for_one_and_some(statement: str, row: str) -> tuple[str, str]:
    """Return a statement for one row, and for as many as go together."""
    return statement + row, statement + ", ".join([row] * _TOGETHER)


_STATES = tuple(State)
_READY = State.READY
_SELECT = f"select {COLUMNS} from items"
_INSERT = f"insert into items ({COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
#: Of a new item that is ready, and has nothing that is special: each value that is bound costs 120 ns.
_INSERT_PLAIN = _for_one_and_some(
    "insert into items (id, queue, state, rank, size, attempt, forgiven, value) values ", "(?, ?, 0, ?, ?, 0, 0, ?)"
)
_UPSERT_SESSION = _for_one_and_some("insert or replace into sessions values ", "(?, ?, ?, ?, ?)")
_INSERT_LARGE = "insert into large values (?, ?)"
_LEASE = "update items set state = 3, until = ?, attempt = ?, session = ?, seq = ? where "
#: The same of one that is given back: very many leases may end at once.
_GIVE_BACK = "update items set state = 0, until = null, forgiven = ?, session = null, seq = null, error = ? where "
_ONE, _SOME = "id = ?", f"id in ({', '.join('?' * _TOGETHER)})"
_UPDATE = (
    "update items set queue = ?, state = ?, rank = ?, until = ?, attempt = ?, forgiven = ?, session = ?, seq = ?,"
    " error = ? where id = ?"
)
_UPSERT_QUEUE = "insert or replace into queues values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class SQLiteStore:
    """A `Store` on an open database, whose transactions are its owner's."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._run = database.execute
        self._run_many = database.executemany
        self._changed: dict[int, Record] = {}
        self._plain: list[tuple[int, int, int, int, bytes | None]] = []  # rows of new items, which have no record
        self._large: list[tuple[int, bytes]] = []  # values of those
        self._given_back: dict[int, Record] = {}  # nothing else of them has changed, except that they may be leased
        self._leased: dict[int, Record] = {}  # nothing else of them has changed
        self._removed: dict[int, Record] = {}
        self._answered: dict[bytes, tuple[Answered, float]] = {}
        self._kept_acks = sum(count for (count,) in self._run("select count from acks"))

    # -- what the file has at the begin

    def queues(self) -> list[QueueRow]:
        """Return all queues."""
        rows = self._run("select * from queues").fetchall()
        return [QueueRow(row[0], row[1], row[2], bool(row[3]), row[4], row[5:10], row[10]) for row in rows]

    def leased(self) -> list[Record]:
        """Return all leased items, without their values."""
        return self._records("where state = 3", ())

    def acked(self) -> list[tuple[int, int]]:
        """Return what was acked last, oldest first."""
        found: list[tuple[int, int]] = []
        for (pairs,) in self._run("select pairs from acks order by number"):
            numbers = array("q", pairs)
            found += zip(numbers[::2], numbers[1::2])
        return found[-MOST_ACKED:]

    def next_number(self) -> int:
        """Return a number above all that were given to items and places."""
        return int(self._one("select next_number from state")[0])

    # -- questions

    def ready(self, queue: int, above: int, limit: int) -> list[Record]:
        """Return the first ready items of a rank above ``above``, by rank."""
        return self._records("where queue = ? and state = 0 and rank > ? order by rank limit ?", (queue, above, limit))

    def blocked(self, queue: int, above: int, limit: int) -> list[Record]:
        """Return the first blocked items of a rank above ``above``, by rank."""
        return self._records("where queue = ? and state = 1 and rank > ? order by rank limit ?", (queue, above, limit))

    def dead(self, queue: int, above: int, limit: int) -> list[Record]:
        """Return the first dead items with an id above ``above``, by id."""
        return self._records("where queue = ? and state = 4 and id > ? order by id limit ?", (queue, above, limit))

    def find(self, id: int) -> Record | None:
        """Return an item."""
        return self._first("where id = ?", (id,))

    def value(self, record: Record) -> bytes:
        """Return the value of an item."""
        if record.value is not None:
            return record.value
        self.flush()
        if record.size > INLINE_BYTES:
            return bytes(self._one("select value from large where id = ?", (record.id,))[0])
        return bytes(self._one("select value from items where id = ?", (record.id,))[0])

    def due(self, now: float, limit: int) -> list[Record]:
        """Return the first items whose delay has ended, by its end."""
        return self._records("where state = 2 and until <= ? order by until, id limit ?", (now, limit))

    def next_due(self) -> float | None:
        """Return when the next delay ends."""
        return self._earliest("select until from items where state = 2 order by until limit 1")

    def expired(self, now: float, limit: int) -> list[Record]:
        """Return the first items that have expired and are neither leased nor dead."""
        which = "where expires is not null and state < 3 and expires <= ? order by expires limit ?"
        return self._records(which, (now, limit))

    def next_expiry(self) -> float | None:
        """Return when the next item expires that is neither leased nor dead."""
        which = "where expires is not null and state < 3 order by expires limit 1"
        return self._earliest(f"select expires from items {which}")

    def first_of_group(self, queue: int, group: str) -> Record | None:
        """Return the one item of a group that is ready or leased."""
        return self._first("where queue = ? and grp = ? and grp is not null and state in (0, 3)", (queue, group))

    def next_of_group(self, queue: int, group: str) -> Record | None:
        """Return the blocked item of a group with the lowest rank."""
        return self._first(
            "where queue = ? and grp = ? and grp is not null and state = 1 order by rank", (queue, group)
        )

    def answered(self, session: bytes) -> Answered | None:
        """Return how the last put of a session was answered."""
        if session in self._answered:
            return self._answered[session][0]
        row = self._run("select seq, first, count from sessions where session = ?", (session,)).fetchone()
        return None if row is None else Answered(*row)

    def duplicate(self, key: int, dedup_id: str, now: float) -> Answered | None:
        """Return how the put with this id was answered whose window has not ended."""
        which = "where queue = ? and dedup_id = ? and until > ?"
        row = self._run(f"select seq, first, count from duplicates {which}", (key, dedup_id, now)).fetchone()
        return None if row is None else Answered(*row)

    # -- changes

    def save(self, record: Record) -> None:
        """Keep an item as it is now."""
        self._changed[record.id] = record

    def save_plain(self, queue: int, id: int, rank: int, values: Sequence[bytes]) -> None:
        """Keep new items that are ready, with ids and ranks from these on, and nothing else that is special."""
        sizes = list(map(len, values))
        inline: Sequence[bytes | None] = values
        if max(sizes) > INLINE_BYTES:
            self._large += [(id + at, values[at]) for at, size in enumerate(sizes) if size > INLINE_BYTES]
            inline = [None if size > INLINE_BYTES else value for size, value in zip(sizes, values)]
        ids, ranks = range(id, id + len(values)), range(rank, rank + len(values))
        self._plain += zip(ids, itertools.repeat(queue), ranks, sizes, inline)

    def lease(self, record: Record) -> None:
        """Keep that an item is leased which was ready, or for how long, if nothing else of it has changed."""
        if record.id not in self._changed:
            self._leased[record.id] = record

    def give_back(self, record: Record) -> None:
        """Keep that an item is ready again which was leased, at its place, and with the error of that attempt."""
        if self._leased.pop(record.id, None) is not None:
            self._changed[record.id] = record
        elif record.id not in self._changed:
            self._given_back[record.id] = record

    def remove(self, record: Record) -> None:
        """Keep an item no more."""
        self._changed.pop(record.id, None)
        self._given_back.pop(record.id, None)
        self._leased.pop(record.id, None)
        if record.is_kept:
            self._removed[record.id] = record

    def save_queue(self, row: QueueRow) -> None:
        """Keep a queue as it is now."""
        key, number, name, is_paused, token, counts, size = row
        self._run(_UPSERT_QUEUE, (key, number, name, is_paused, token, *counts, size))

    def discard(self, queue: int) -> None:
        """Remove all items of a queue's number, some time; no question finds them from now on."""
        self.flush()
        self._run("insert into discarded values (?)", (queue,))

    def save_answered(self, session: bytes, answered: Answered, now: float) -> None:
        """Keep how the last put of a session was answered."""
        self._answered[session] = answered, now

    def save_duplicate(self, key: int, dedup_id: str, until: float, answered: Answered) -> None:
        """Keep how a put with an id was answered."""
        self._run("insert or replace into duplicates values (?, ?, ?, ?, ?, ?)", (key, dedup_id, until, *answered))

    def save_acked(self, pairs: list[tuple[int, int]]) -> None:
        """Keep what was acked in this batch, and forget what is older than so many acks."""
        numbers = array("q", [number for pair in pairs for number in pair])
        self._run("insert into acks (count, pairs) values (?, ?)", (len(pairs), numbers.tobytes()))
        self._kept_acks += len(pairs)
        while self._kept_acks > 2 * MOST_ACKED:
            oldest, count = self._one("select number, count from acks order by number limit 1")
            self._run("delete from acks where number = ?", (oldest,))
            self._kept_acks -= count

    def save_next_number(self, number: int) -> None:
        """Keep a number above all that were given."""
        self._run("update state set next_number = ?", (number,))

    def flush(self) -> None:
        """Write all that was gathered, as part of the present transaction."""
        if self._removed:
            self._remove_all(self._removed.values())
            self._removed = {}
        if self._given_back:
            rows = [((r.forgiven, r.error), id) for id, r in self._given_back.items() if id not in self._changed]
            self._run_alike(_GIVE_BACK, rows)
            self._given_back = {}
        if self._leased:
            leased = [record for id, record in self._leased.items() if id not in self._changed]
            if leased:
                self._lease_all(leased)
            self._leased = {}
        if self._plain:
            self._insert_all(_INSERT_PLAIN, self._plain)
            self._plain = []
        if self._large:
            self._run_many(_INSERT_LARGE, self._large)
            self._large = []
        if self._changed:
            self._write_all(self._changed.values())
            self._changed = {}
        if self._answered:
            puts = [(session, *answered, at) for session, (answered, at) in self._answered.items()]
            self._insert_all(_UPSERT_SESSION, puts)
            self._answered = {}

    # -- inside

    def _remove_all(self, records: Iterable[Record]) -> None:
        self._run_alike("delete from items where ", [((), record.id) for record in records])
        large = [((), record.id) for record in records if record.size > INLINE_BYTES]
        if large:
            self._run_alike("delete from large where ", large)

    def _insert_all(self, statements: tuple[str, str], rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a statement, for one and for some, with all ``rows``."""
        for_one, for_some = statements
        whole = len(rows) - len(rows) % _TOGETHER
        for at in range(0, whole, _TOGETHER):
            some = tuple(itertools.chain.from_iterable(rows[at : at + _TOGETHER]))
            self._run(for_some, some)
        if whole < len(rows):
            self._run_many(for_one, rows[whole:])

    def _run_alike(self, statement: str, rows: Iterable[tuple[tuple[Any, ...], int]]) -> None:
        """Run a statement with the values and the id of each row, once for some in a row that have the same values."""
        rest: list[tuple[Any, ...]] = []
        for values, alike in itertools.groupby(rows, itemgetter(0)):
            ids = [id for _, id in alike]
            whole = len(ids) - len(ids) % _TOGETHER
            for at in range(0, whole, _TOGETHER):
                self._run(statement + _SOME, (*values, *ids[at : at + _TOGETHER]))
            rest += [(*values, id) for id in ids[whole:]]
        if rest:
            self._run_many(statement + _ONE, rest)

    def _lease_all(self, records: Sequence[Record]) -> None:
        first, other = records[0], records[min(len(records), _TOGETHER) - 1]
        if len(records) >= _TOGETHER and first.session == other.session:  # else each consumer has got a few
            self._run_alike(_LEASE, [((r.until, r.attempt, r.session, r.seq), r.id) for r in records])
        else:
            self._run_many(_LEASE + _ONE, [(r.until, r.attempt, r.session, r.seq, r.id) for r in records])
        for record in records:
            record.value = None

    def _write_all(self, records: Iterable[Record]) -> None:
        plain, new, large, known = [], [], [], []
        for record in records:
            is_ready = record.state is _READY
            if record.is_kept:
                known.append(_update_of(record))
            else:
                record.is_kept = True
                if record.size > INLINE_BYTES:
                    large.append((record.id, record.value))
                    record.value = None
                if is_ready and record.group is record.expires and not record.attempt:  # both are None
                    plain.append((record.id, record.queue, record.rank, record.size, record.value))
                else:
                    new.append(_row_of(record))
            if not is_ready:
                record.value = None  # it may be long until somebody asks for it
        if plain:
            self._insert_all(_INSERT_PLAIN, plain)
        if new:
            self._run_many(_INSERT, new)
        if large:
            self._run_many(_INSERT_LARGE, large)
        if known:
            self._run_many(_UPDATE, known)

    def _records(self, which: str, parameters: Sequence[Any]) -> list[Record]:
        self.flush()
        return [_record_of(row) for row in self._run(f"{_SELECT} {which}", parameters)]

    def _first(self, which: str, parameters: Sequence[Any]) -> Record | None:
        found = self._records(f"{which} limit 1", parameters)
        return found[0] if found else None

    def _one(self, question: str, parameters: Sequence[Any] = ()) -> Any:
        return self._run(question, parameters).fetchone()

    def _earliest(self, question: str) -> float | None:
        self.flush()
        row = self._one(question)
        return None if row is None else float(row[0])


def _row_of(record: Record) -> tuple[Any, ...]:
    r = record
    head = (r.id, r.queue, int(r.state), r.rank, r.size, r.until, r.attempt, r.forgiven, r.session, r.seq)
    return (*head, r.expires, r.group, r.error, r.value)


def _update_of(record: Record) -> tuple[Any, ...]:
    r = record
    return (r.queue, int(r.state), r.rank, r.until, r.attempt, r.forgiven, r.session, r.seq, r.error, r.id)


def _record_of(row: tuple[Any, ...]) -> Record:
    id, queue, state, at, size, until, attempt, forgiven, session, seq, expires, group, error, value = row
    of_lease = (until, attempt, forgiven, session, seq)
    return Record(id, queue, _STATES[state], at, size, value, group, expires, *of_lease, error, is_kept=True)
