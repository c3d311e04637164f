"""Writes a child's common cells of the scoreboard, which the master reads for children of every kind.

Runs in the child, the only writer of its row. A kind writes its own cells itself.
"""

from __future__ import annotations

from rpccluster import system
from rpccluster.ipc.scoreboard import CommonCell, Row, RowState

__all__ = ["Cells"]


class Cells:
    """Writes the common cells of one row."""

    def __init__(self, row: Row) -> None:
        self._row = row

    def show(self, state: RowState) -> None:
        """Write the child's state, for its siblings."""
        self._row[CommonCell.STATE] = state

    def beat(self, now_ns: int, apart: int = 0) -> int:
        """Write a heartbeat at monotonic ``now_ns``, and the resident memory. Returns that memory in bytes.

        So many bytes of it are ``apart``, and do not count.
        """
        self._row[CommonCell.HEARTBEAT] = now_ns
        self._row[CommonCell.RSS_BYTES] = resident = max(0, system.resident_bytes() - apart)
        return resident

    def tell_where(self, number: int) -> None:
        """Answer the master's question to a hung child: what it works on."""
        self._row[CommonCell.HUNG_IN] = number
