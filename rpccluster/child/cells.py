"""A child's common cells of the scoreboard: what its master reads of any child, whatever its kind.

Written by the child alone, in its own process. The cells of a kind's own are written by the kind.
"""

from __future__ import annotations

from rpccluster import system
from rpccluster.ipc.scoreboard import CommonCell, Row, RowState

__all__ = ["Cells"]


class Cells:
    """Writes to one row."""

    def __init__(self, row: Row) -> None:
        self._row = row

    def show(self, state: RowState) -> None:
        """Say what this child is, for its siblings."""
        self._row[CommonCell.STATE] = state

    def beat(self, now_ns: int) -> int:
        """Give a sign of life, at monotonic ``now_ns``. Returns the resident memory in bytes, which it tells, too."""
        self._row[CommonCell.HEARTBEAT] = now_ns
        self._row[CommonCell.RSS_BYTES] = resident = system.resident_bytes()
        return resident

    def begin(self, number: int, deadline_ns: int = 0) -> None:
        """Work on ``number`` from now on, until ``deadline_ns`` at most; 0 is no limit."""
        self._row[CommonCell.DEADLINE] = deadline_ns
        self._row[CommonCell.RUNNING] = number

    def end(self) -> None:
        """Work on nothing any more."""
        self._row[CommonCell.RUNNING] = 0
        self._row[CommonCell.DEADLINE] = 0

    def tell_where(self, number: int) -> None:
        """Answer the master, who asks a child that hangs what it works on."""
        self._row[CommonCell.HUNG_IN] = number
