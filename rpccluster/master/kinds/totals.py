"""Adds up the counters of all workers of a cluster, including those that have ended. Runs in the master.

A worker's own counters end with it. The totals never go back, not even in an upgrade: the new master gets them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rpccluster.ipc.scoreboard import LIMITS, ROW_CELLS, Cell, CommonCell, Row

__all__ = ["Totals"]

COUNTERS = {
    "calls": Cell.CALLS,
    "errors": Cell.ERRORS,
    "accepted": Cell.ACCEPTED,
    "accept_wakeups": Cell.ACCEPT_WAKEUPS,
    "adopted": Cell.ADOPTED,
    "handed_over": Cell.HANDED_OVER,
    "dropped_replies": Cell.DROPPED_REPLIES,
    "stalls": CommonCell.STALLS,
}


class Totals:
    """The counters of ended workers, by name; those of living workers are read when needed."""

    def __init__(self) -> None:
        self._ended: Counter[str] = Counter()
        self._told: Counter[str] = Counter()

    def note_end(self, row: Row) -> None:
        """Add the counters of an ended worker, before its row is cleared."""
        self._ended.update(_counts(row.cells))

    def note_inherited(self, counts: Mapping[str, int]) -> None:
        """Add the counts that the old master sends."""
        self._ended.update(counts)

    def untold(self, rows: Iterable[Row]) -> dict[str, int]:
        """Return the counts since the last call, for the new master."""
        total = self._sum(rows)
        untold = total - self._told
        self._told = total
        return dict(untold)

    def status(self, rows: Iterable[Row]) -> dict[str, Any]:
        """Return the totals for ``status``; ``rows`` are those of living workers."""
        total = self._sum(rows)
        return {**{name: total[name] for name in COUNTERS}, "limits": {name: total[name] for name in LIMITS}}

    def _sum(self, rows: Iterable[Row]) -> Counter[str]:
        cells = [sum(column) for column in zip([0] * ROW_CELLS, *(row.cells.tolist() for row in rows))]
        return self._ended + _counts(cells)


def _counts(cells: Sequence[int]) -> Counter[str]:
    return Counter({name: cells[cell] for name, cell in (*COUNTERS.items(), *LIMITS.items())})
