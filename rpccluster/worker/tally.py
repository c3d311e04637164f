"""Counts the calls of a worker by method and outcome, and times them, for metrics. Runs in the worker.

The outcome of a call is what its caller is told. A call is counted when its reply is put where it leaves, so a killed
worker misses none that was answered; a notification when it ends. Only the thread of the loop counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic_ns
from types import MappingProxyType
from typing import Any, Callable

from rpccluster.ipc.scoreboard import LIMITS, Cell, CommonCell
from rpccluster.log import logger
from rpccluster.metrics.layout import BUCKET_NS, BUCKETS, FAILED, OK, WORD, Block, Outcome, OwnCell
from rpccluster.metrics.row import Row
from rpccluster.protocol.bounded import CALL

__all__ = ["Silent", "Tally", "make_tally", "outcome_of"]

_QUEUE = int(OwnCell.QUEUE)
_LAST = BUCKETS - 1

#: What errors tell that are no errors of a method, by the begin of their texts.
_OUTCOMES = {
    "TimeoutError": Outcome.TIMEOUT,
    "Cancelled": Outcome.CANCELLED,
    "LeadLost": Outcome.LOST,
    "WorkerLost": Outcome.LOST,
    "WorkerRetired": Outcome.LOST,
    "Forbidden": Outcome.REFUSED,
    "NotLeader": Outcome.REFUSED,
    "RateLimited": Outcome.REFUSED,
}


def outcome_of(error: str) -> Outcome:
    """Return the outcome of a call that is answered with the text ``error``."""
    return _OUTCOMES.get(error.partition(":")[0], Outcome.ERROR)


class Silent:
    """The tally of a worker that does not count."""

    known: Mapping[Any, Any] = MappingProxyType({})  # the cells of each method, by its name
    count: Callable[[Any, Any, float, int, int], None] | None = None  # for the hot path; see `Tally`
    arrived_at: Callable[[], float]  # the engine's: when the call that begins now has come, in monotonic seconds

    queue: Any = None  # the cells of the time that calls have waited

    def know(self, names: Iterable[str]) -> None:
        """Count the methods with these names each by itself, and all others together."""

    def now(self) -> int:
        """Return the clock's nanoseconds; 0 if nothing is timed."""
        return 0

    def begin(self, runner: Any, arrived_at: float = 0.0) -> None:
        """Begin to time the call of ``runner``, which has come just now, or at ``arrived_at`` (monotonic seconds)."""

    def note_begin(self, runner: Any, arrived_at: float, began_ns: int) -> None:
        """Note when the call of ``runner`` has come (monotonic seconds), and when it has begun."""

    def park(self, runner: Any, parked: Any) -> None:
        """Note in ``parked`` when the call of ``runner`` has begun, which is answered later."""

    def end(self, runner: Any, error: str = "") -> None:
        """Count the call of ``runner``, which is answered with its result, or with ``error``."""

    def end_of(self, name: str, error: str, began_ns: int = 0) -> None:
        """Count a call of the method ``name`` as `end` does; one that has not begun has no ``began_ns``."""

    def note_handover(self, seconds: float) -> None:
        """Count a connection that has come from another worker."""

    def carry_over(self) -> None:
        """Count what the worker's row of the scoreboard counts."""

    def leave(self) -> None:
        """Count for nobody from now on, in a process that the service has forked."""


class Tally(Silent):
    """Counts into a row of the file of the counters."""

    def __init__(self, row: Row, scoreboard_row: Any, clock: Callable[[], int] = monotonic_ns) -> None:
        """``scoreboard_row`` is this worker's row of the scoreboard; ``clock`` tells monotonic nanoseconds."""
        self._row = row
        self._scoreboard_row = scoreboard_row
        self._carried: dict[Any, int] = {}
        self.now = clock  # type: ignore[method-assign]
        self.known: dict[Any, memoryview] = {}
        self._bounded: Any = None  # the cells of ``rpc.call``
        self._own = row.own
        self.queue = row.own[_QUEUE:]
        self.count = self._count

    def know(self, names: Iterable[str]) -> None:
        self.known = {name: self._row.block(Block.METHOD, name) for name in names}
        self._bounded = self.known.get(CALL)

    def _count(self, cells: memoryview, runner: Any, arrived_at: float, began_ns: int, now_ns: int) -> None:
        """Count a call of ``runner`` that has succeeded, in the ``cells`` of its method, or the one named inside.

        It does what `_add` does, at less cost: the hot path pays for it.
        """
        if cells is self._bounded:
            cells = self._cells_of(runner.call[-2])
        elapsed, waited, queue = now_ns - began_ns, began_ns - int(arrived_at * 1e9), self.queue
        cells[OK] = (cells[OK] + elapsed) & WORD
        bucket = (elapsed // BUCKET_NS).bit_length()
        cells[OK + 1 + (bucket if bucket < BUCKETS else _LAST)] += 1
        if waited > 0:
            queue[0] = (queue[0] + waited) & WORD
            bucket = (waited // BUCKET_NS).bit_length()
            queue[1 + (bucket if bucket < BUCKETS else _LAST)] += 1
        else:
            queue[1] += 1

    def _cells_of(self, name: Any) -> memoryview:
        return self.known.get(name, self._row.other)

    def begin(self, runner: Any, arrived_at: float = 0.0) -> None:
        self.note_begin(runner, arrived_at or self.arrived_at(), self.now())

    def note_begin(self, runner: Any, arrived_at: float, began_ns: int) -> None:
        runner.began_ns, runner.waited_ns = began_ns, max(0, began_ns - int(arrived_at * 1e9))

    def park(self, runner: Any, parked: Any) -> None:
        parked.began_ns = self._take_begin(runner)

    def end(self, runner: Any, error: str = "") -> None:
        if runner.call is not None:
            self.end_of(runner.call[-2], error, self._take_begin(runner))

    def _take_begin(self, runner: Any) -> int:
        """Return when the call of ``runner`` has begun, 0 if it has not; and count its wait."""
        began_ns, runner.began_ns = runner.began_ns, 0
        if began_ns:
            _add(self._own, _QUEUE, runner.waited_ns)
        return int(began_ns)

    def end_of(self, name: str, error: str, began_ns: int = 0) -> None:
        cells, outcome = self._cells_of(name), outcome_of(error) if error else None
        if outcome is not None:
            cells[outcome] += 1
        if outcome is None or (began_ns and outcome is not Outcome.REFUSED):
            _add(cells, OK if outcome is None else FAILED, self.now() - began_ns if began_ns else 0)

    def note_handover(self, seconds: float) -> None:
        _add(self._own, OwnCell.HANDOVERS, max(0, int(seconds * 1e9)))

    def carry_over(self) -> None:
        own, row = self._own, self._scoreboard_row
        own[OwnCell.CONNECTIONS] = row[Cell.CONNECTIONS]
        own[OwnCell.STALLS] += self._new(CommonCell.STALLS)
        for name, cell in LIMITS.items():
            if row[cell]:
                self._row.block(Block.LIMIT, name)[0] += self._new(cell)

    def _new(self, cell: Any) -> int:
        """Return by how much a cell of the scoreboard has grown since the last time."""
        before = self._carried.get(cell, 0)
        self._carried[cell] = now = self._scoreboard_row[cell]
        return int(now) - before

    def leave(self) -> None:
        self._row.leave()


def _add(cells: memoryview, at: int, nanoseconds: int) -> None:
    """Add a duration to the histogram ``at`` this cell."""
    cells[at] = (cells[at] + nanoseconds) & WORD
    bucket = (nanoseconds // BUCKET_NS).bit_length()
    cells[at + 1 + (bucket if bucket < BUCKETS else _LAST)] += 1


def make_tally(descriptor: int, scoreboard_row: Any) -> Silent:
    """Make the tally of a worker: ``descriptor`` is the file of the counters, -1 for none."""
    if descriptor < 0:
        return Silent()
    try:
        return Tally(Row(descriptor), scoreboard_row)
    except OSError as error:  # there is no memory for it, or the file may not be that large
        logger.warning("This process counts nothing: %s", error)
        return Silent()
