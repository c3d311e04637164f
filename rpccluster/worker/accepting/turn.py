"""Decides whose turn it is to accept, from the scoreboard alone. Pure; runs in the worker.

A worker may accept if it has the fewest connections of those that take part: that accept, have had a heartbeat in the
last `LIFE_SIGN_NS`, have room for connections, and a greenlet for calls. The lowest row wins a tie. In a burst, when it
has just accepted one, it may lead the fewest by `LEAD`, and by one in any case.

Nobody waits for a worker that is busy, stopped or gone. The scoreboard's accept counter shows whether any worker
accepts: if a connection waits and the counter has not moved for `PATIENCE_SECONDS`, the worker that sees it accepts out
of turn, and leaves those that had fewer connections out until they show life, by a heartbeat or a wake-up for the
listeners.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from rpccluster.ipc.scoreboard import HEADER_CELLS, ROW_CELLS, Cell, CommonCell, RowState, Scoreboard, is_full

__all__ = ["Turn", "Verdict"]

PATIENCE_SECONDS = 0.008  # how long connections may wait for the one whose turn it is
LIFE_SIGN_NS = 1_500_000_000  # a worker with an older heartbeat does not take part
LEAD = 0.05  # share of the fewest connections by which a worker may be ahead in a burst

_STATE = int(CommonCell.STATE)
_HEARTBEAT = int(CommonCell.HEARTBEAT)
_CONNECTIONS = int(Cell.CONNECTIONS)
_LIMIT = int(Cell.CONNECTION_LIMIT)
_TAKEN_AT = int(Cell.GREENLETS_TAKEN_AT)
_WAKEUPS = int(Cell.ACCEPT_WAKEUPS)
_ACCEPTING = int(RowState.ACCEPTING)


class Verdict(enum.Enum):
    """The result of a look at the scoreboard."""

    FULL = "this worker has as many connections, or calls, as it may have"
    WAIT = "another's turn"
    MINE = "this worker's turn"
    OUT_OF_TURN = "connections wait and nobody takes them"


class Turn:
    """Decides whose turn it is to accept."""

    def __init__(self, scoreboard: Scoreboard, row_number: int) -> None:
        self._scoreboard = scoreboard
        self._cells = scoreboard.cells
        self._start = HEADER_CELLS + row_number * ROW_CELLS
        self._counter_seen = 0
        self._unmoved_since: float | None = None  # None: when this worker looked last, no connection waited
        self._passed_over: dict[int, tuple[int, int]] = {}

    def look(self, now: float, now_ns: int, *, is_burst: bool = False) -> Verdict:
        """Return whether this worker may take the next waiting connection. Call it again and again while one waits.

        ``now`` is monotonic seconds, ``now_ns`` the same clock in nanoseconds; ``is_burst`` says that it has just
        accepted one.
        """
        is_unmoved = self._is_unmoved(now)
        if self.is_full(now_ns):
            return Verdict.FULL
        if self._is_mine(now_ns, is_burst):
            return Verdict.OUT_OF_TURN if is_unmoved else Verdict.MINE
        if is_unmoved:
            self._pass_over(now_ns)
            return Verdict.OUT_OF_TURN
        return Verdict.WAIT

    def note_none_waits(self) -> None:
        """Note that no connection waits: patience starts with the next one."""
        self._unmoved_since = None

    def is_full(self, now_ns: int) -> bool:
        """Return whether this worker has all the connections it may have, or calls hold all its greenlets."""
        return self._has_no_room(self._start, now_ns)

    def has_all_connections(self) -> bool:
        """Return whether this worker has as many connections as it may have."""
        return bool(self._cells[self._start + _CONNECTIONS] >= self._cells[self._start + _LIMIT])

    def _has_no_room(self, start: int, now_ns: int) -> bool:
        cells = self._cells
        return cells[start + _CONNECTIONS] >= cells[start + _LIMIT] or is_full(cells[start + _TAKEN_AT], now_ns)

    def _is_mine(self, now_ns: int, is_burst: bool) -> bool:
        """Whether no worker that takes part has fewer connections (in a burst: clearly fewer); ties: the lowest row."""
        mine = self._cells[self._start + _CONNECTIONS]
        fewest, row = min(self._others(now_ns), default=(mine + 1, self._start))
        if is_burst:
            return bool(mine <= fewest + max(1, int(fewest * LEAD)))
        return (mine, self._start) < (fewest, row)

    def _others(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield (connections, row) of each other worker that takes part."""
        cells = self._cells
        end = HEADER_CELLS + self._scoreboard.rows_in_use * ROW_CELLS
        for start in range(HEADER_CELLS, end, ROW_CELLS):
            if (
                start != self._start
                and cells[start + _STATE] == _ACCEPTING
                and now_ns - cells[start + _HEARTBEAT] < LIFE_SIGN_NS
                and not self._has_no_room(start, now_ns)
                and self._passed_over.get(start) != self._life_signs(start)
            ):
                yield cells[start + _CONNECTIONS], start

    def _is_unmoved(self, now: float) -> bool:
        """Whether connections have waited past patience while nobody accepted any.

        As long as the counter stands, a connection that this worker saw waiting still waits.
        """
        counter = self._scoreboard.accept_counter
        if self._unmoved_since is None or counter != self._counter_seen:
            self._counter_seen, self._unmoved_since = counter, now
        return now - self._unmoved_since >= PATIENCE_SECONDS

    def _pass_over(self, now_ns: int) -> None:
        """Leave out the workers whose turn it was, until they show life: they are busy, stopped or gone."""
        mine = (self._cells[self._start + _CONNECTIONS], self._start)
        for count, start in list(self._others(now_ns)):
            if (count, start) < mine:
                self._passed_over[start] = self._life_signs(start)

    def _life_signs(self, start: int) -> tuple[int, int]:
        return self._cells[start + _HEARTBEAT], self._cells[start + _WAKEUPS]
