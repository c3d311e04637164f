"""Whose turn it is to accept: told from a scoreboard, with a made-up clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.ipc.scoreboard import FULL_AFTER_NS, Cell, CommonCell, RowState, Scoreboard
from rpccluster.worker.accepting.turn import LEAD, LIFE_SIGN_NS, PATIENCE_SECONDS, Turn, Verdict

NOW = 1000.0
LIMIT = 1000


class Board:
    """A scoreboard with a row for each of ``counts``, all ready and alive at the clock's beginning."""

    def __init__(self, *counts: int) -> None:
        self.scoreboard = Scoreboard(max(8, len(counts)))
        self.now = NOW
        self.rows = []
        for count in counts:
            row = self.scoreboard.row(self.scoreboard.take_row())
            row[CommonCell.STATE], row[Cell.CONNECTIONS], row[Cell.CONNECTION_LIMIT] = RowState.ACCEPTING, count, LIMIT
            self.rows.append(row)
        self.beat()
        self.turns = [Turn(self.scoreboard, number) for number in range(len(counts))]

    def beat(self, *numbers: int) -> None:
        """A sign of life of those, or all, workers."""
        for number in numbers or range(len(self.rows)):
            self.rows[number][CommonCell.HEARTBEAT] = int(self.now * 1e9)

    def look(self, number: int, *, is_burst: bool = False) -> Verdict:
        """The verdict of worker ``number``, now."""
        return self.turns[number].look(self.now, int(self.now * 1e9), is_burst=is_burst)

    def accept(self, number: int) -> None:
        """Worker ``number`` accepts one."""
        self.rows[number][Cell.CONNECTIONS] += 1
        self.scoreboard.count_accept()

    def counts(self) -> list[int]:
        """Connections by worker."""
        return [row[Cell.CONNECTIONS] for row in self.rows]


def whose(board: Board) -> list[int]:
    """The workers that say it is their turn."""
    return [number for number in range(len(board.rows)) if board.look(number) is Verdict.MINE]


def test_the_one_with_the_fewest_connections_accepts():
    """It is the turn of exactly one."""
    assert whose(Board(5, 3, 4, 9)) == [1]


def test_a_tie_goes_to_the_lowest_row():
    """Equal counts: still exactly one."""
    assert whose(Board(4, 3, 3, 3)) == [1]


def test_a_worker_alone_always_accepts():
    """Nobody to share with."""
    assert whose(Board(900)) == [0]


@pytest.mark.parametrize("state", [RowState.BOOTING, RowState.NOT_ACCEPTING, RowState.FREE])
def test_only_those_that_accept_take_part(state):
    """A booting, retiring or vanished worker with the fewest connections holds nobody up."""
    board = Board(0, 5, 6)
    board.rows[0][CommonCell.STATE] = state
    assert board.look(1) is Verdict.MINE


def test_a_silent_worker_does_not_take_part():
    """Whoever has not beaten for a while is stopped or gone."""
    board = Board(0, 5, 6)
    board.now += LIFE_SIGN_NS / 1e9 + 0.001
    board.beat(1, 2)
    assert board.look(1) is Verdict.MINE


def test_a_full_worker_neither_accepts_nor_holds_others_up():
    """``worker_connections`` bounds a worker, however long connections wait."""
    board = Board(2, 5)
    board.rows[0][Cell.CONNECTION_LIMIT] = 2
    assert board.look(0) is Verdict.FULL
    assert board.look(1) is Verdict.MINE
    board.now += 10
    assert board.look(0) is Verdict.FULL


def test_a_worker_whose_greenlets_are_all_taken_takes_no_part():
    """While no call of it ends; one that has just begun its last greenlet is no worse than others."""
    board = Board(2, 5)
    board.rows[0][Cell.GREENLETS_TAKEN_AT] = int(board.now * 1e9)
    assert whose(board) == [0]
    board.rows[0][Cell.GREENLETS_TAKEN_AT] -= FULL_AFTER_NS
    assert board.look(0) is Verdict.FULL
    assert whose(board) == [1]
    board.rows[0][Cell.GREENLETS_TAKEN_AT] = 0
    assert whose(board) == [0]


def test_a_burst_may_lead_the_fewest_by_one_or_five_percent():
    """So that a worker does not pause for every connection of a burst."""
    few = Board(4, 3)
    assert few.look(0) is Verdict.WAIT
    assert few.look(0, is_burst=True) is Verdict.MINE
    few.accept(0)
    assert few.look(0, is_burst=True) is Verdict.WAIT
    many = Board(100 + int(100 * LEAD), 100)
    assert many.look(0, is_burst=True) is Verdict.MINE
    many.accept(0)
    assert many.look(0, is_burst=True) is Verdict.WAIT


def test_out_of_turn_once_patience_is_over():
    """A connection that the worker whose turn it is does not take is taken by another, within milliseconds."""
    board = Board(0, 5)
    assert board.look(1) is Verdict.WAIT
    board.now += PATIENCE_SECONDS / 2
    assert board.look(1) is Verdict.WAIT
    board.now += PATIENCE_SECONDS / 2 + 0.0001
    assert board.look(1) is Verdict.OUT_OF_TURN


def test_patience_begins_anew_when_somebody_accepts():
    """As long as the counter moves, the others keep out."""
    board = Board(0, 50)
    for _ in range(20):
        assert board.look(1) is Verdict.WAIT
        board.now += PATIENCE_SECONDS * 0.9
        board.accept(0)
    assert board.look(1) is Verdict.WAIT


def test_patience_begins_anew_when_none_waits():
    """A connection that comes an hour after the last is not out of patience."""
    board = Board(0, 5)
    assert board.look(1) is Verdict.WAIT
    board.turns[1].note_none_waits()
    board.now += 3600
    board.beat()
    assert board.look(1) is Verdict.WAIT


def test_a_worker_that_looks_rarely_is_as_impatient():
    """One that is busy itself looks late: what it saw waiting still waits, or the counter would have moved."""
    board = Board(0, 5)
    assert board.look(1) is Verdict.WAIT
    board.now += PATIENCE_SECONDS * 3
    assert board.look(1) is Verdict.OUT_OF_TURN


def test_a_stopped_holder_of_the_lock_is_not_waited_for():
    """Even who is in turn comes to accept without the lock, which a stopped process may hold for ever."""
    board = Board(0, 5)
    assert board.look(0) is Verdict.MINE
    board.now += PATIENCE_SECONDS + 0.0001
    assert board.look(0) is Verdict.OUT_OF_TURN


def test_who_was_passed_over_is_left_out_until_it_shows_life():
    """Only the first connection waits for a worker that hangs; it takes part again at its next sign of life."""
    board = Board(0, 5, 9)
    board.look(1)
    board.now += PATIENCE_SECONDS + 0.0001
    assert board.look(1) is Verdict.OUT_OF_TURN
    board.accept(1)
    assert board.look(1) is Verdict.MINE
    board.accept(1)
    board.now += 0.01
    board.beat(0)
    assert board.look(1) is Verdict.WAIT


def test_a_wake_up_is_a_sign_of_life():
    """A worker that looks at its listeners is back, though its next heartbeat is still to come."""
    board = Board(0, 5)
    board.look(1)
    board.now += PATIENCE_SECONDS + 0.0001
    board.look(1)
    board.accept(1)
    assert board.look(1) is Verdict.MINE
    board.rows[0][Cell.ACCEPT_WAKEUPS] += 1
    assert board.look(1) is Verdict.WAIT


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=6),
    st.integers(0, 200),
    st.lists(st.integers(0, 5), max_size=400),
)
def test_single_connections_even_the_counts_out(counts, arrivals, order):
    """Whatever the counts and whoever looks first: each arrival goes to one of those with the fewest, at once."""
    board = Board(*counts)
    looks = iter(order)
    for _ in range(arrivals):
        fewest = min(board.counts())
        first = next(looks, 0) % len(counts)
        takers = [n for n in (*range(first, len(counts)), *range(first)) if board.look(n) is Verdict.MINE]
        assert len(takers) == 1
        assert board.counts()[takers[0]] == fewest
        board.accept(takers[0])
        board.now += 0.005


@given(st.integers(2, 6), st.integers(1, 400), st.lists(st.integers(0, 5), max_size=600))
def test_a_burst_stays_within_its_lead(workers, arrivals, order):
    """However the workers are scheduled, nobody gets further ahead of the fewest than the lead allows."""
    board = Board(*[0] * workers)
    looks = iter(order)
    left = arrivals
    turn = 0
    while left:
        number = next(looks, turn) % workers
        turn += 1
        taken = 0
        while left and board.look(number, is_burst=taken > 0) is Verdict.MINE:
            board.accept(number)
            taken, left = taken + 1, left - 1
        fewest = min(board.counts())
        assert max(board.counts()) <= fewest + max(1, int(fewest * LEAD)) + 1
        board.now += PATIENCE_SECONDS / 100
        board.beat()
