"""Counters that outlive the workers: they never go back, whoever ends."""

from __future__ import annotations

from rpccluster.ipc.scoreboard import Cell
from rpccluster.master.kinds.totals import Totals

from ..made_up import ready


def test_who_has_ended_counts_on() -> None:
    """Also when its row is cleared, and another has it."""
    totals, worker = Totals(), ready()
    worker.row[Cell.CALLS], worker.row[Cell.MAX_DEPTH] = 10, 3
    assert totals.status([worker.row])["calls"] == 10
    totals.note_end(worker.row)
    worker.row.clear()
    worker.row[Cell.CALLS] = 1
    told = totals.status([worker.row])
    assert (told["calls"], told["limits"]["max_depth"], told["errors"]) == (11, 3, 0)


def test_a_new_master_goes_on_where_the_old_one_was() -> None:
    """It is told what has been counted since it was told last, and has it all in the end."""
    old, new, worker, successor = Totals(), Totals(), ready(), ready()
    worker.row[Cell.CALLS] = 10
    new.note_inherited(old.untold([worker.row]))
    assert new.status([])["calls"] == 10
    worker.row[Cell.CALLS], successor.row[Cell.CALLS] = 12, 5
    old.note_end(worker.row)
    new.note_inherited(old.untold([]))
    assert new.status([successor.row])["calls"] == 17
    assert not any(old.untold([]).values())
