"""What the master and the system tell of a cluster at one moment, and what two such moments tell of the time between.

Pure; the process that the user starts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["History", "Method", "MethodCounts", "Snapshot", "quantile"]

WINDOW_SECONDS = 5.0  # over which rates and times are counted


class MethodCounts(NamedTuple):
    """What was counted of one method since the start: calls that have ended, failed ones, and all by their time."""

    calls: int
    failed: int
    buckets: Sequence[int]


@dataclass(frozen=True)
class Snapshot:
    """What was told ``at`` a moment (monotonic seconds).

    ``methods`` is None if nobody counts; then ``missing`` says why. ``cpu`` has the CPU seconds of processes by pid.
    """

    at: float
    status: dict[str, Any]
    calls: list[dict[str, Any]] = field(default_factory=list)
    methods: Mapping[str, MethodCounts] | None = None
    bounds: Sequence[float] = ()
    missing: str = ""
    pools: list[dict[str, Any]] = field(default_factory=list)
    cpu: Mapping[int, float] = field(default_factory=dict)


class Method(NamedTuple):
    """One method over the last seconds. Rates are calls a second, times seconds; None if no call has ended."""

    name: str
    rate: float
    failing: float
    p50: float | None
    p99: float | None
    calls: int


class History:
    """The last snapshots."""

    def __init__(self) -> None:
        self._kept: deque[Snapshot] = deque()

    def add(self, snapshot: Snapshot) -> None:
        """Add the newest; forget what is older than the window, but keep one to compare with."""
        self._kept.append(snapshot)
        while len(self._kept) > 2 and self._kept[1].at <= snapshot.at - WINDOW_SECONDS:
            self._kept.popleft()

    @property
    def last(self) -> Snapshot:
        """The newest one; there must be one."""
        return self._kept[-1]

    @property
    def seconds(self) -> float:
        """The time between the first and the newest one; 0 if there is one alone."""
        return self._kept[-1].at - self._kept[0].at

    def cpu_share(self, pid: int) -> float | None:
        """Return which share of one CPU the process has used; None if that is not known yet."""
        for first in self._kept:  # a process that is new was not there at first
            if pid in first.cpu and pid in self.last.cpu and first is not self.last:
                return (self.last.cpu[pid] - first.cpu[pid]) / (self.last.at - first.at)
        return None

    def call_rate(self, pid: int) -> float | None:
        """Return how many calls a second have ended in a worker; None if that is not known yet."""
        now = _calls_of(self.last, pid)
        for first in self._kept:
            before = _calls_of(first, pid)
            if now is not None and before is not None and first is not self.last:
                return (now - before) / (self.last.at - first.at)
        return None

    def methods(self) -> list[Method]:
        """Return the methods that have ever been called."""
        first, last = self._kept[0], self.last
        before = first.methods or {}
        called = {name: counts for name, counts in (last.methods or {}).items() if counts.calls}
        return [self._method(name, counts, before.get(name)) for name, counts in called.items()]

    def _method(self, name: str, now: MethodCounts, before: MethodCounts | None) -> Method:
        if before is None:
            before = MethodCounts(0, 0, [0] * len(now.buckets))
        seconds = self.seconds or float("inf")
        ended = [new - old for new, old in zip(now.buckets, before.buckets)]
        bounds = self.last.bounds
        p50, p99 = quantile(0.5, ended, bounds), quantile(0.99, ended, bounds)
        rate, failing = (now.calls - before.calls) / seconds, (now.failed - before.failed) / seconds
        return Method(name, rate, failing, p50, p99, now.calls)


def quantile(share: float, counts: Sequence[int], bounds: Sequence[float]) -> float | None:
    """Return the time that ``share`` of all have not exceeded, as far as buckets tell; None if there are none.

    ``bounds`` are the upper ends of the buckets; the last bucket has no end, and counts as if it had no length.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    passed = 0
    for place, count in enumerate(counts):
        if count and passed + count >= rank:
            if place >= len(bounds):
                break
            low = bounds[place - 1] if place else 0.0
            return low + (bounds[place] - low) * (rank - passed) / count
        passed += count
    return bounds[-1]


def _calls_of(snapshot: Snapshot, pid: int) -> int | None:
    return next((worker["calls"] for worker in snapshot.status["workers"] if worker["pid"] == pid), None)
