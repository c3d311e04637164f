"""The first ready items of a queue, in memory, so that a get seldom has to ask the file. Runs in the keeper.

All ready items up to a rank, the horizon, are here; those beyond it are in the file alone.
"""

from __future__ import annotations

import heapq

from rpccluster.queues.record import Record

__all__ = ["ALL", "FILL", "MOST", "NONE", "Head"]

ALL = 1 << 62  # the horizon when no ready item is beyond it
NONE = -1  # the horizon when the file may have items and none of them is here
FILL = 256  # items that are read at a time
MOST = 4 * FILL


class Head:
    """The first ready items by rank."""

    def __init__(self, horizon: int = ALL) -> None:
        self.horizon = horizon
        self._heap: list[tuple[int, int]] = []  # (rank, id), also of items that are gone
        self._records: dict[int, Record] = {}

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Record) -> None:
        """Take an item in that is ready now, if it is within the horizon."""
        if record.rank > self.horizon:
            return
        self._records[record.id] = record
        heapq.heappush(self._heap, (record.rank, record.id))
        if len(self._records) > MOST:
            self._trim()

    def fill(self, records: list[Record]) -> None:
        """Take in what the file has beyond the horizon: its first items, at most FILL."""
        self.horizon = records[-1].rank if len(records) == FILL else ALL
        self._records = {record.id: record for record in records}
        self._heap = [(record.rank, record.id) for record in records]  # sorted, and so a heap

    def pop(self) -> Record | None:
        """Take the first item out."""
        records = self._records
        while self._heap:
            at, id = heapq.heappop(self._heap)
            record = records.get(id)
            if record is not None and record.rank == at:
                del records[id]
                return record
        return None

    def drop(self, id: int) -> Record | None:
        """Take an item out, wherever it stands; None if it is not here."""
        return self._records.pop(id, None)

    def _trim(self) -> None:
        kept = sorted(self._records.values(), key=lambda record: record.rank)[:FILL]
        self.fill(kept)
