"""The scoreboard: rows that are taken and given back, cells that every process sees."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.ipc.scoreboard import ROW_CELLS, Cell, CommonCell, RowState, Scoreboard


def test_rows_are_taken_from_the_lowest() -> None:
    """And none when all are taken."""
    board = Scoreboard(3)
    assert [board.take_row() for _ in range(4)] == [0, 1, 2, None]


def test_a_row_given_back_is_taken_again() -> None:
    """The lowest free one first, cleared."""
    board = Scoreboard(3)
    for _ in range(3):
        board.take_row()
    board.row(1)[Cell.CALLS] = 7
    board.free_row(1)
    assert board.row(1)[Cell.CALLS] == 0
    board.row(1)[Cell.CALLS] = 9  # by a worker that was not quite dead
    assert board.take_row() == 1
    assert board.row(1)[Cell.CALLS] == 0


def test_rows_in_use_bound_what_workers_look_at() -> None:
    """No worker at or above that number."""
    board = Scoreboard(4)
    assert board.rows_in_use == 0
    for _ in range(3):
        board.take_row()
    board.free_row(1)
    assert board.rows_in_use == 3
    board.free_row(2)
    assert board.rows_in_use == 1
    board.free_row(0)
    assert board.rows_in_use == 0


def test_rows_do_not_touch_each_other() -> None:
    """Every cell of every row is a place of its own, and none is the header's."""
    board = Scoreboard(3)
    board.count_accept()
    for number in range(3):
        board.take_row()
        for cell in range(ROW_CELLS):
            board.row(number).cells[cell] = number * 100 + cell
    for number in range(3):
        assert list(board.row(number).cells) == [number * 100 + cell for cell in range(ROW_CELLS)]
    assert (board.rows_in_use, board.accept_counter) == (3, 1)
    board.row(1).clear()
    assert not any(board.row(1).cells)
    assert board.row(0)[CommonCell.HEARTBEAT] == 1
    assert board.row(2)[CommonCell.HEARTBEAT] == 201


def test_every_cell_has_a_place() -> None:
    """No two the same, all within a row."""
    cells = [*CommonCell, *Cell]
    assert len({int(cell) for cell in cells}) == len(cells)
    assert max(cells) < ROW_CELLS


def test_a_row_is_free_until_it_says_otherwise() -> None:
    """What a cleared row says."""
    board = Scoreboard(1)
    board.take_row()
    assert board.row(0)[CommonCell.STATE] == RowState.FREE


@pytest.mark.parametrize("value", [0, 1, 2**32, 2**63, 2**64 - 1])
def test_cells_hold_64_bits(value: int) -> None:
    """All of them."""
    row = Scoreboard(1).row(0)
    row[CommonCell.HEARTBEAT] = value
    assert row[CommonCell.HEARTBEAT] == value == row.cells[CommonCell.HEARTBEAT]


@pytest.mark.parametrize("value", [-1, 2**64])
def test_what_does_not_fit_is_refused(value: int) -> None:
    """And changes nothing."""
    row = Scoreboard(1).row(0)
    with pytest.raises((ValueError, TypeError, OverflowError)):
        row[Cell.CALLS] = value
    assert row[Cell.CALLS] == 0


def test_a_forked_process_writes_what_the_other_reads() -> None:
    """The memory is shared, both ways, without a message."""
    board = Scoreboard(2)
    board.take_row()
    row = board.row(0)
    done_read, done_write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            row[Cell.CALLS] = 42
            board.count_accept()
            os.write(done_write, b".")
            os.read(go_read, 1)
            os._exit(0 if row[CommonCell.HUNG_IN] == 5 else 1)
        finally:
            os._exit(2)
    os.read(done_read, 1)
    assert (row[Cell.CALLS], board.accept_counter) == (42, 1)
    row[CommonCell.HUNG_IN] = 5
    os.write(go_write, b".")
    assert os.waitpid(pid, 0)[1] == 0
    for descriptor in (done_read, done_write, go_read, go_write):
        os.close(descriptor)


def test_a_reader_never_sees_half_a_value() -> None:
    """Cells are written by plain aligned stores: either the old value or the new one."""
    row = Scoreboard(1).row(0)
    values = {0, 0xFFFFFFFF_FFFFFFFF, 0x00000000_FFFFFFFF, 0xFFFFFFFF_00000000}
    pid = os.fork()
    if pid == 0:
        try:
            for _ in range(50_000):
                for value in values:
                    row[CommonCell.HEARTBEAT] = value
        finally:
            os._exit(0)
    seen = set()
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        seen.update(row[CommonCell.HEARTBEAT] for _ in range(1000))
    assert seen <= values


@given(st.lists(st.integers(0, 9), max_size=60))
def test_taking_and_freeing_in_any_order_keeps_the_books(steps: list[int]) -> None:
    """A step below 5 takes, another frees the row of that number, if taken."""
    board, taken = Scoreboard(5), set()
    for step in steps:
        if step < 5:
            number = board.take_row()
            assert number == min(set(range(5)) - taken, default=None)
            taken |= {number} - {None}
        elif step - 5 in taken:
            board.free_row(step - 5)
            taken.discard(step - 5)
        assert board.rows_in_use == max(taken, default=-1) + 1


def test_who_has_left_reads_and_writes_for_itself() -> None:
    """In a forked child: views that it holds stay good, and change nothing for the others."""
    scoreboard = Scoreboard(4)
    row = scoreboard.row(scoreboard.take_row() or 0)
    row[Cell.CALLS] = 7
    pid = os.fork()
    if pid == 0:
        scoreboard.leave()
        row[Cell.CALLS] += 1
        os._exit(row[Cell.CALLS])
    assert os.waitpid(pid, 0)[1] >> 8 == 1
    assert row[Cell.CALLS] == 7
