"""All leases: which item which session has, and until when. Runs in the keeper; does no I/O and reads no clock."""

from __future__ import annotations

import heapq

from rpccluster.queues.record import Record

__all__ = ["Leases"]


class Leases:
    """The leased items, by id, by session, and by their end."""

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._of_session: dict[bytes, dict[int, Record]] = {}
        self._last_seq: dict[bytes, int] = {}  # the highest number of a get, of the sessions that have items
        self._ends: list[tuple[float, int, int]] = []  # a heap of (end, id, attempt), also of leases that are over

    def __len__(self) -> int:
        return len(self._records)

    def sessions(self) -> list[bytes]:
        """Return the sessions that have items."""
        return list(self._of_session)

    def add(self, record: Record, session: bytes, until: float) -> None:
        """Lease an item."""
        record.session = session
        self._records[record.id] = record
        held = self._of_session.get(session)
        if held is None:
            held = self._of_session[session] = {}
        held[record.id] = record
        if record.seq is not None and record.seq > self._last_seq.get(session, -1):
            self._last_seq[session] = record.seq
        self.renew(record, until)

    def renew(self, record: Record, until: float) -> None:
        """Let a lease end at ``until``."""
        record.until = until
        heapq.heappush(self._ends, (until, record.id, record.attempt))

    def find(self, id: int, attempt: int, now: float) -> Record | None:
        """Return the item if this attempt at it is held still; its time may be over before `first_over` tells it."""
        record = self._held(id, attempt)
        return None if record is None or record.until is None or record.until <= now else record

    def _held(self, id: int, attempt: int) -> Record | None:
        """Return the item if this attempt at it is leased, and not abandoned."""
        record = self._records.get(id)
        if record is None or record.attempt != attempt or record.session is None:
            return None
        return record if id in self._of_session.get(record.session, ()) else None

    def has(self, record: Record, attempt: int) -> bool:
        """Return whether this attempt at an item is leased, abandoned ones included, whatever its time."""
        return record.attempt == attempt and record.id in self._records

    def held(self, session: bytes) -> list[Record]:
        """Return the items of a session."""
        return list(self._of_session.get(session, {}).values())

    def abandon(self, session: bytes) -> list[Record]:
        """Return the items of a session that has ended. It holds them no more, though they are leased yet."""
        self._last_seq.pop(session, None)
        return list(self._of_session.pop(session, {}).values())

    def taken(self, session: bytes, seq: int, queue: int) -> list[Record]:
        """Return the items of a queue that the get ``seq`` of a session has taken, as far as it has them still."""
        if seq > self._last_seq.get(session, -1):
            return []
        return [record for record in self.held(session) if record.seq == seq and record.queue == queue]

    def of_queue(self, queue: int) -> list[Record]:
        """Return the leased items of the queue with this number."""
        return [record for record in self._records.values() if record.queue == queue]

    def end(self, record: Record) -> None:
        """End the lease of an item."""
        del self._records[record.id]
        session = record.session
        assert session is not None
        held = self._of_session.get(session)  # without it, if it was abandoned
        if held is not None and held.pop(record.id, None) is not None and not held:
            del self._of_session[session]
            self._last_seq.pop(session, None)
        record.session = record.until = record.seq = None

    def first_over(self, now: float) -> Record | None:
        """Return an item that is held, and whose lease's time is over; the caller ends it."""
        while self._ends:
            until, id, attempt = self._ends[0]
            record = self._held(id, attempt)
            if record is not None and record.until == until:
                return record if until <= now else None
            heapq.heappop(self._ends)
        return None

    def next_end(self) -> float | None:
        """Return when the next lease ends."""
        self.first_over(float("-inf"))
        return self._ends[0][0] if self._ends else None
