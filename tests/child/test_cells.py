"""The common cells of a child: what is read of any of them, whatever its kind."""

from __future__ import annotations

from rpccluster.child.cells import Cells
from rpccluster.ipc.scoreboard import FIRST_OWN_CELL, CommonCell, RowState, Scoreboard


def test_a_beat_tells_of_life_and_memory() -> None:
    """Both with one look."""
    row = Scoreboard(1).row(0)
    resident = Cells(row).beat(4711)
    assert row[CommonCell.HEARTBEAT] == 4711
    assert row[CommonCell.RSS_BYTES] == resident > 1 << 20


def test_its_state_and_where_it_hangs() -> None:
    """For its siblings, and as the answer to the master's question."""
    row = Scoreboard(1).row(0)
    cells = Cells(row)
    cells.show(RowState.NOT_ACCEPTING)
    cells.tell_where(5)
    assert (row[CommonCell.STATE], row[CommonCell.HUNG_IN]) == (RowState.NOT_ACCEPTING, 5)


def test_no_kinds_cells_lie_among_the_common_ones() -> None:
    """There is room for a few more."""
    assert max(CommonCell) < FIRST_OWN_CELL
