"""The rates of the rules, which hold over all workers: each worker's share of them. Runs in the worker.

A rate lets its number of calls pass in each second; what an idle second has left may come at once (a burst), and the
second after a burst begins with nothing. Each worker writes how many calls of each rate have passed and were refused in
it, into cells of its own in shared memory. Twice a second each one reads the cells of all, works out how many calls may
pass now by what has passed everywhere, and takes its share: by its part of the demand. So a worker without calls holds
next to nothing back, and what was shared out wrongly in one turn is missing, or left, in the next.

A worker that comes takes over what another one knows of each rate, which that one writes down at each look: it may be a
debt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any

from rpccluster.ipc.scoreboard import RATE_COUNTS, CommonCell, RowState, Scoreboard
from rpccluster.worker.access.bucket import Bucket

__all__ = ["LEVEL_SECONDS", "Rates", "Total"]

LEVEL_SECONDS = 0.5

_SECOND_NS = 1_000_000_000
_KNOWN = 4  # cells that tell what a worker knows of a rate: the rate, its tokens, from when they grow, calls seen
_DEBT = 1 << 62  # is added to tokens, which may be below 0
_MILLI = 1000


class Total:
    """How many calls of one rate may pass now, over all workers. Pure.

    It has ``rate`` tokens at most. If it was full, it grows again when the first of them would be due once more: so a
    burst and what follows are together no more than the rate, and calls at just this rate all pass.
    """

    def __init__(self, rate: float, now_ns: int, tokens: float = 0.0) -> None:
        self.rate = rate
        self.most = max(1.0, rate)
        self.tokens = tokens
        self.grows_from_ns = now_ns

    def note(self, used: float, now_ns: int) -> None:
        """Count ``used`` calls that have passed since the last time, and what has grown until ``now_ns``."""
        pause = (self.most - 1) / self.rate - LEVEL_SECONDS / 2  # the first call came since the last look
        if self.tokens >= self.most and used and pause > 0:
            self.grows_from_ns = now_ns + int(pause * _SECOND_NS)
        self.tokens -= used
        if now_ns > self.grows_from_ns:
            self.tokens = min(self.most, self.tokens + (now_ns - self.grows_from_ns) * self.rate / _SECOND_NS)
            self.grows_from_ns = now_ns

    def share(self, part: float) -> tuple[float, float, int]:
        """Return the tokens of a worker with this ``part`` of the demand, what they grow by a ns, and from when on."""
        own = float(math.ceil(self.tokens * part - 1e-9)) if self.tokens >= 1.0 else min(0.0, self.tokens)
        per_ns = self.rate * part / _SECOND_NS if self.tokens < self.most else 0.0
        return own, per_ns, self.grows_from_ns


class Rates:
    """The rates of all rules in one worker, in the order of the rules."""

    def __init__(
        self,
        scoreboard: Scoreboard,
        row_number: int,
        make: Callable[[], Any] = Bucket,
        clock: Callable[[], int] = monotonic_ns,
    ) -> None:
        """``make`` makes a bucket; ``clock`` tells monotonic nanoseconds."""
        self._scoreboard = scoreboard
        self._row_number = row_number
        self.make = make
        self._clock = clock
        self._own = scoreboard.rate_cells(row_number)
        self._totals: list[Total] = []
        self._base: list[int] = []  # what this row's cells said at the begin
        self._seen: list[int] = []  # what all cells said at the last look, in sum
        self.buckets: list[Any] = []

    def set_rates(self, rates: Sequence[float]) -> None:
        """Begin with these ``rates``, in calls a second."""
        now, count = self._clock(), 2 * len(rates)
        self.buckets = [self.make() for _ in rates]
        self._base = self._own[:count].tolist()
        self._seen = self._scoreboard.all_rates(count)
        self._totals = [self._known(number, rate) or self._new(number, rate, now) for number, rate in enumerate(rates)]
        self.level()

    def _new(self, number: int, rate: float, now: int) -> Total:
        """Return a rate that no other worker knows: with all its tokens, unless calls of it have passed before."""
        return Total(rate, now, 0.0 if any(self._seen[2 * number : 2 * number + 2]) else max(1.0, rate))

    def _known(self, number: int, rate: float) -> Total | None:
        """Return what the worker knows of a rate that has looked last; None if none knows it."""
        rows = (row for row in range(self._scoreboard.rows_in_use) if row != self._row_number)
        known = [self._told(self._scoreboard.rate_cells(row), number).tolist() for row in rows]
        same = [each for each in known if each[0] == _milli(rate)]
        if not same:
            return None
        _, tokens, grows_from_ns, self._seen[2 * number] = max(same, key=lambda each: each[3])
        return Total(rate, grows_from_ns, (tokens - _DEBT) / _MILLI)

    def _told(self, cells: memoryview, number: int) -> memoryview:
        start = RATE_COUNTS + _KNOWN * number
        return cells[start : start + _KNOWN]

    def level(self) -> None:
        """Tell the others what has passed here, and take this worker's share anew. Called twice a second."""
        if not self.buckets:
            return
        now, own = self._clock(), self._own
        before = own[: len(self._base)].tolist()
        for number, bucket in enumerate(self.buckets):
            own[2 * number] = self._base[2 * number] + round(bucket.used)
            own[2 * number + 1] = self._base[2 * number + 1] + bucket.refused
        seen, self._seen = self._seen, self._scoreboard.all_rates(len(self._base))
        accepting = sum(
            self._scoreboard.row(row)[CommonCell.STATE] == RowState.ACCEPTING
            for row in range(self._scoreboard.rows_in_use)
        )
        for number, total in enumerate(self._totals):
            passed, refused = (max(0, self._seen[place] - seen[place]) for place in (2 * number, 2 * number + 1))
            own_demand = sum(own[2 * number : 2 * number + 2]) - sum(before[2 * number : 2 * number + 2]) + 1
            total.note(passed, now)
            part = own_demand / max(passed + refused + accepting, own_demand)
            tokens, per_ns, from_ns = total.share(part)
            self.buckets[number].grant(tokens, per_ns, max(1.0, total.most * part), max(now, from_ns))
            told, owed = self._told(own, number), _DEBT + round(total.tokens * _MILLI)
            told[0], told[1], told[2], told[3] = _milli(total.rate), owed, from_ns, self._seen[2 * number]


def _milli(rate: float) -> int:
    """Return a rate as a cell has it; never 0, which is that of a cell that nobody has written."""
    return max(1, round(rate * _MILLI))
