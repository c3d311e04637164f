"""What all workers of a cluster have counted together, those that have ended included. Runs in the master.

A worker's own counters end with it; these never go back, also over an upgrade: the new master is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rpccluster.ipc.scoreboard import LIMITS, Cell, Row

__all__ = ["Totals"]

COUNTERS = {
    "calls": Cell.CALLS,
    "errors": Cell.ERRORS,
    "accepted": Cell.ACCEPTED,
    "accept_wakeups": Cell.ACCEPT_WAKEUPS,
    "adopted": Cell.ADOPTED,
    "handed_over": Cell.HANDED_OVER,
    "dropped_replies": Cell.DROPPED_REPLIES,
}


class Totals:
    """The counters of workers that have ended, by name; those of living ones are read as they are asked for."""

    def __init__(self) -> None:
        self._ended: Counter[str] = Counter()
        self._told: Counter[str] = Counter()

    def note_end(self, row: Row) -> None:
        """The worker of this row has ended; the row is about to be cleared."""
        self._ended.update(_counts(row))

    def note_inherited(self, counts: Mapping[str, int]) -> None:
        """The old master has counted so much that it had not told yet."""
        self._ended.update(counts)

    def untold(self, rows: Iterable[Row]) -> dict[str, int]:
        """What the new master has not been told yet; it has now."""
        total = self._sum(rows)
        untold = total - self._told
        self._told = total
        return dict(untold)

    def status(self, rows: Iterable[Row]) -> dict[str, Any]:
        """For ``status``; ``rows`` are those of the living."""
        total = self._sum(rows)
        return {**{name: total[name] for name in COUNTERS}, "limits": {name: total[name] for name in LIMITS}}

    def _sum(self, rows: Iterable[Row]) -> Counter[str]:
        total = Counter(self._ended)
        for row in rows:
            total.update(_counts(row))
        return total


def _counts(row: Row) -> dict[str, int]:
    return {name: row[cell] for name, cell in (*COUNTERS.items(), *LIMITS.items())}
