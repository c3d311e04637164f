"""The rules of queues: each verb, the end of leases and delays, on a `Store`. Runs in the keeper; does no I/O itself.

After a transaction that was not committed a book is of no use: the next one reads what the store has.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable

from rpccluster.errors import EngineFailed, LeaseLost, NoSuchQueue, RPCClusterError
from rpccluster.queues import engine as verbs
from rpccluster.queues.engine import Answer, DeadItem, Item, Outcome, Rules, Verb
from rpccluster.queues.head import NONE
from rpccluster.queues.leases import Leases
from rpccluster.queues.queue import Queue
from rpccluster.queues.record import Record, State, rank
from rpccluster.queues.repeats import Repeats
from rpccluster.queues.store import Answered, QueueRow, Store

__all__ = ["Book"]

_AT_A_TIME = 1000  # leases, delays and items that end before the verbs of one batch: some milliseconds

LEASE_OVER = "its lease was over"
SESSION_ENDED = "its consumer has gone"


class Book:
    """All queues, and what is done with them."""

    def __init__(self, store: Store, rules: Mapping[str, Rules], default: Rules | None) -> None:
        self._store = store
        self._repeats = Repeats(store)
        self._leases = Leases()
        self._abandoned: deque[tuple[Record, int, bool]] = deque()  # with attempt, and whether that counts
        self._left = 0  # of those, how many may yet be given back in this batch
        #: The sessions that were told to end, and whether that counts, until all of their items are given back. Another
        #: book is to end them anew if a transaction of this one is not committed.
        self.ending: dict[bytes, bool] = {}
        self._queues: dict[str, Queue] = {}
        self._by_number: dict[int, Queue] = {}
        self._number = self._kept_number = store.next_number()
        self._now = 0.0
        self._next_due = store.next_due()
        self._next_expiry = store.next_expiry()
        self._room: set[str] = set()
        self._touched: set[Queue] = set()
        self.configure(rules, default)
        for row in store.queues():
            self._add(row)
        for record in store.leased():
            if record.session is not None and record.until is not None:
                self._leases.add(record, record.session, record.until)

    def sessions(self) -> list[bytes]:
        """Return the sessions that have items."""
        return self._leases.sessions()

    def configure(self, rules: Mapping[str, Rules], default: Rules | None) -> None:
        """Take over the rules of each queue."""
        self._rules, self._default = rules, default
        for name, queue in self._queues.items():
            queue.rules = rules.get(name) or default or queue.rules

    def run(self, batch: Sequence[Verb], now: float) -> Outcome:
        """Run a batch. The caller commits what the store was told meanwhile."""
        self._now = now
        self._room.clear()
        self._touched.clear()
        self._left = _AT_A_TIME
        if not self._abandoned:
            self.ending.clear()
        is_more = self._end_leases() | self._end_abandoned() | self._begin_delayed() | self._expire()
        answers = [self._answer(verb) for verb in batch]
        self._save()
        ready = frozenset(queue.name for queue in self._touched if queue.has_ready)
        wake_in = 0.0 if is_more or self._abandoned else self._wake_in()
        return Outcome(answers, ready, frozenset(self._room), wake_in)

    def _answer(self, verb: Verb) -> Answer:
        try:
            return _DO[type(verb)](self, verb)
        except EngineFailed:
            raise
        except (RPCClusterError, ValueError) as error:
            return error

    def _save(self) -> None:
        for queue in self._queues.values():
            if queue.is_changed:
                self._store.save_queue(queue.row())
                queue.is_changed = False
        self._repeats.save()
        if self._number != self._kept_number:
            self._kept_number = self._number
            self._store.save_next_number(self._number)

    # -- what time brings

    def _wake_in(self) -> float | None:
        times = [at for at in (self._leases.next_end(), self._next_due, self._next_expiry) if at is not None]
        return max(0.0, min(times) - self._now) if times else None

    def _end_leases(self) -> bool:
        for _ in range(_AT_A_TIME):
            record = self._leases.first_over(self._now)
            if record is None:
                return False
            self._give_back(record, LEASE_OVER)
        return True

    def _end_abandoned(self) -> bool:
        """Give items back whose session has ended, unless something else has ended their lease meanwhile."""
        while self._abandoned and self._left:
            self._left -= 1
            record, attempt, counts = self._abandoned.popleft()
            if self._leases.has(record, attempt):
                record.forgiven += not counts
                self._give_back(record, SESSION_ENDED)
        return bool(self._abandoned)

    def _begin_delayed(self) -> bool:
        if self._next_due is None or self._next_due > self._now:
            return False
        due = self._store.due(self._now, _AT_A_TIME)
        for record in due:
            queue = self._of(record)
            if queue is not None:
                record.until = None
                record.go_to_the_end(self._take_numbers(1))
                self._enter(queue, record)
        self._next_due = self._store.next_due()
        return len(due) == _AT_A_TIME

    def _expire(self) -> bool:
        if self._next_expiry is None or self._next_expiry > self._now:
            return False
        expired = self._store.expired(self._now, _AT_A_TIME)
        for record in expired:
            queue = self._of(record)
            if queue is not None:
                # the end of the one before may have made this one of its group ready
                now = record if record.group is None else self._store.find(record.id)
                self._remove(queue, now or record)
        self._next_expiry = self._store.next_expiry()
        return len(expired) == _AT_A_TIME

    # -- putting and getting

    def _put(self, verb: verbs.Put) -> Answer:
        if verb.session is not None:
            before = self._repeats.put(verb.session, verb.seq)
            if before is not None:
                return _ids(before)
        queue = self._made(verb.queue)
        if verb.token is not None:
            queue.check_token(verb.token)
        duplicate = None
        if verb.dedup_id is not None:
            duplicate = self._store.duplicate(queue.key, verb.dedup_id, self._now)
        if duplicate is None:
            count = len(verb.values)
            if queue.rules.max_size is not None or queue.rules.max_bytes is not None:
                queue.check_room(count, sum(map(len, verb.values)))
            first = self._add_all(queue, verb)
        else:
            first, count = duplicate.first, duplicate.number
        answered = Answered(verb.seq, first, count)
        if verb.dedup_id is not None and duplicate is None:
            self._store.save_duplicate(queue.key, verb.dedup_id, self._now + queue.rules.dedup_window, answered)
        if verb.session is not None:
            self._repeats.note_put(verb.session, answered, self._now)
        return _ids(answered)

    def _add_all(self, queue: Queue, verb: verbs.Put) -> int:
        """Add the items of a put. Returns the first id."""
        now, number, lasts = self._now, queue.number, verb.expires
        if lasts is None:
            lasts = queue.rules.expires
        self._touched.add(queue)
        if lasts is None and verb.group is None and not verb.delay > 0 and verb.values:
            first = self._take_numbers(len(verb.values))
            queue.add_plain(first, verb.priority, verb.values)
            return first
        expires = None if lasts is None else now + lasts
        until = now + verb.delay if verb.delay > 0 else None
        state = State.READY if until is None else State.DELAYED
        first = self._take_numbers(len(verb.values))
        for id, value in enumerate(verb.values, first):
            at = rank(verb.priority, id)
            queue.add(Record(id, number, state, at, len(value), value, verb.group, expires, until))
        if until is not None:
            self._next_due = _earlier(self._next_due, until)
        if expires is not None:
            self._next_expiry = _earlier(self._next_expiry, expires)
        return first

    def _get(self, verb: verbs.Get) -> Answer:
        queue = self._find(verb.queue)
        self._ack_all(queue, verb.ack)
        if queue is None:
            return []
        if verb.seq is not None:
            again = self._leases.taken(verb.session, verb.seq, queue.number)
            if again:
                return [Item(record.id, record.attempt, self._value(record)) for record in again]
        return [] if queue.is_paused else self._take(queue, verb)

    def _take(self, queue: Queue, verb: verbs.Get) -> list[Item]:
        taken: list[Item] = []
        until, size = self._now + queue.rules.lease, 0
        while len(taken) < verb.n:
            record = queue.take()
            if record is None:
                break
            if record.expires is not None and record.expires <= self._now:
                self._remove(queue, record)
                continue
            if taken and size + record.size > verb.most_bytes:
                queue.give_back(record)
                break
            record.attempt += 1
            record.seq = verb.seq
            self._leases.add(record, verb.session, until)
            self._store.lease(record)
            taken.append(Item(record.id, record.attempt, self._value(record)))
            size += record.size
        if taken:
            self._touched.add(queue)
        return taken

    # -- the end of an attempt

    def _ack(self, verb: verbs.Ack) -> Answer:
        queue = self._find(verb.queue) if verb.token is None else self._made(verb.queue)
        if queue is not None:
            queue.check_token(verb.token)
        self._ack_all(queue, verb.pairs)
        return True

    def _ack_all(self, queue: Queue | None, pairs: Sequence[tuple[int, int]]) -> None:
        """End items. Raises `LeaseLost` for those that are lost, when the others are acked."""
        lost = []
        for id, attempt in pairs:
            record = self._leases.find(id, attempt, self._now)
            if record is not None and queue is not None and record.queue == queue.number:
                self._leases.end(record)
                self._remove(queue, record)
                self._repeats.note_acked(id, attempt)
            elif not self._repeats.was_acked(id, attempt):
                lost.append(id)
        if lost:
            raise LeaseLost(", ".join(map(str, lost)))

    def _nack(self, verb: verbs.Nack) -> Answer:
        self._give_back(self._leased(verb.queue, verb.id, verb.attempt), verb.error, verb.delay, is_dead=verb.dead)
        return True

    def _touch(self, verb: verbs.Touch) -> Answer:
        record = self._leased(verb.queue, verb.id, verb.attempt)
        self._leases.renew(record, self._now + self._by_number[record.queue].rules.lease)
        self._store.lease(record)
        return True

    def _end_session(self, verb: verbs.EndSession) -> Answer:
        held = self.end_session(verb.session, verb.counts)
        self._end_abandoned()
        return held

    def end_session(self, session: bytes, counts: bool) -> int:
        """Give the items of ``session`` back with the next batches. Returns their number."""
        held = self._leases.abandon(session)
        self._abandoned.extend((record, record.attempt, counts) for record in held)
        self.ending[session] = counts
        return len(held)

    def _give_back(self, record: Record, error: str, delay: float = 0.0, *, is_dead: bool = False) -> None:
        queue = self._by_number[record.queue]
        self._leases.end(record)
        self._touched.add(queue)
        record.error = error or record.error
        if record.expires is not None and record.expires <= self._now:
            self._remove(queue, record)
        elif is_dead or record.attempt - record.forgiven >= queue.rules.max_attempts:
            queue.put_off(record)
            self._room.add(queue.name)
        elif delay > 0:
            record.until = self._now + delay
            self._next_due = _earlier(self._next_due, record.until)
            queue.put_off(record)
        else:
            queue.give_back(record)
        if record.expires is not None:
            self._next_expiry = _earlier(self._next_expiry, record.expires)

    # -- a queue as a whole

    def _peek(self, verb: verbs.Peek) -> Answer:
        queue = self._find(verb.queue)
        found = iter(()) if queue is None else _first(queue.waiting(), verb.n, verb.most_bytes, _size)
        return [Item(record.id, record.attempt, self._value(record)) for record in found]

    def _dead(self, verb: verbs.Dead) -> Answer:
        queue = self._find(verb.queue)
        found = iter(()) if queue is None else _first(queue.dead(), verb.n, verb.most_bytes, _size_with_error)
        return [DeadItem(each.id, each.counted, self._value(each), each.error or "") for each in found]

    def _retry(self, verb: verbs.Retry) -> Answer:
        queue = self._find(verb.queue)
        if queue is None:
            return 0
        if verb.id is not None:
            found = self._store.find(verb.id)
            is_dead = found is not None and found.state is State.DEAD and found.queue == queue.number
            return self._revive(queue, [found] if found is not None and is_dead else [])
        count, dead = 0, self._store.dead(queue.number, NONE, _AT_A_TIME)
        while dead:
            count += self._revive(queue, dead)
            dead = self._store.dead(queue.number, dead[-1].id, _AT_A_TIME)
        return count

    def _revive(self, queue: Queue, dead: list[Record]) -> int:
        for record in dead:
            record.forgiven = record.attempt
            record.error = None
            record.go_to_the_end(self._take_numbers(1))
            self._enter(queue, record)
        return len(dead)

    def _purge(self, verb: verbs.Purge) -> Answer:
        queue = self._find(verb.queue)
        if queue is None:
            return 0
        del self._by_number[queue.number]
        gone = queue.purge(self._take_numbers(1), self._leases.of_queue(queue.number))
        self._by_number[queue.number] = queue
        self._room.add(queue.name)
        return gone

    def _stats(self, verb: verbs.Stats) -> Answer:
        queue = self._find(verb.queue)
        return (queue or Queue(QueueRow(0, 0, verb.queue, False, None, _EMPTY, 0), Rules(), self._store)).stats()

    def _pause(self, verb: verbs.Pause | verbs.Resume) -> Answer:
        queue = self._made(verb.queue)
        queue.is_paused = isinstance(verb, verbs.Pause)
        queue.is_changed = True
        self._touched.add(queue)
        return True

    def _list(self, verb: verbs.List) -> Answer:
        kept = self._queues if self._default is not None else ()
        return sorted({*self._rules, *kept})

    # -- inside

    def _find(self, name: str) -> Queue | None:
        """Return a queue; None for one that nothing was put into. Raises `NoSuchQueue` for one without rules."""
        if self._default is None and name not in self._rules:
            raise NoSuchQueue(name)
        return self._queues.get(name)

    def _made(self, name: str) -> Queue:
        found = self._find(name)
        if found is not None:
            return found
        number = self._take_numbers(1)
        return self._add(QueueRow(number, number, name, False, None, _EMPTY, 0))

    def _add(self, row: QueueRow) -> Queue:
        rules = self._rules.get(row.name) or self._default or Rules()
        queue = self._queues[row.name] = self._by_number[row.number] = Queue(row, rules, self._store)
        return queue

    def _of(self, record: Record) -> Queue | None:
        """Return the queue of an item; the items of one that was purged are removed."""
        queue = self._by_number.get(record.queue)
        if queue is None:
            self._store.remove(record)
        return queue

    def _enter(self, queue: Queue, record: Record) -> None:
        queue.enter(record)
        self._touched.add(queue)
        if record.expires is not None:
            self._next_expiry = _earlier(self._next_expiry, record.expires)

    def _remove(self, queue: Queue, record: Record) -> None:
        queue.remove(record)
        self._room.add(queue.name)
        if record.group is not None:
            self._touched.add(queue)

    def _leased(self, name: str, id: int, attempt: int) -> Record:
        queue, record = self._find(name), self._leases.find(id, attempt, self._now)
        if queue is None or record is None or record.queue != queue.number:
            raise LeaseLost(str(id))
        return record

    def _value(self, record: Record) -> bytes:
        return self._store.value(record) if record.value is None else record.value

    def _take_numbers(self, count: int) -> int:
        first = self._number
        self._number += count
        return first


_EMPTY = (0,) * len(State)


def _ids(answered: Answered) -> list[int]:
    return list(range(answered.first, answered.first + answered.number))


def _first(records: Iterator[Record], n: int, most_bytes: int, size_of: Callable[[Record], int]) -> Iterator[Record]:
    """Give the first ``n``, as far as they have at most ``most_bytes``, but at least one."""
    size = 0
    for number, record in enumerate(itertools.islice(records, n)):
        size += size_of(record)
        if number and size > most_bytes:
            break
        yield record


def _size(record: Record) -> int:
    return record.size


def _size_with_error(record: Record) -> int:
    return record.size + len((record.error or "").encode(errors="surrogatepass"))


def _earlier(one: float | None, other: float) -> float:
    return other if one is None or other < one else one


_DO: dict[type, Callable[[Book, Any], Answer]] = {
    verbs.Put: Book._put,
    verbs.Get: Book._get,
    verbs.Ack: Book._ack,
    verbs.Nack: Book._nack,
    verbs.Touch: Book._touch,
    verbs.EndSession: Book._end_session,
    verbs.Peek: Book._peek,
    verbs.Dead: Book._dead,
    verbs.Retry: Book._retry,
    verbs.Purge: Book._purge,
    verbs.Stats: Book._stats,
    verbs.Pause: Book._pause,
    verbs.Resume: Book._pause,
    verbs.List: Book._list,
}
