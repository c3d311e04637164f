"""The last hour in samples, in memory that the master owns: the next process of the page goes on with it.

A sample stands in the slot of its time, under the number of that time, so that two processes that overlap write the
same place, and a slot that nobody has written lately is known for what it is. Runs in the page's process.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["SAMPLE_SECONDS", "SLOTS", "Hour", "Sample", "rates", "sample_of"]

SAMPLE_SECONDS = 10.0
SLOTS = 360

_SLOT = struct.Struct("=q4d")  # its number + 1; the fields of a sample
_BYTES = _SLOT.size * (SLOTS + 1)


class Sample(NamedTuple):
    """What was seen at one time: two counters, and two gauges."""

    calls: float
    errors: float
    connections: float
    resident_bytes: float


def sample_of(status: Mapping[str, Any]) -> Sample:
    """Return what ``status`` shows of now."""
    totals, workers = status["master"]["totals"], status["workers"]
    resident = sum(process["rss_bytes"] for group in status["groups"] for process in group["processes"])
    connections = sum(worker["connections"] for worker in workers)
    return Sample(totals["calls"], totals["errors"], connections, resident)


class Hour:
    """The samples of the last hour, in the file of a descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Raises OSError if the file cannot be mapped."""
        if os.fstat(descriptor).st_size < _BYTES:
            os.ftruncate(descriptor, _BYTES)
        self._memory = mmap.mmap(descriptor, _BYTES)

    def note(self, now: float, sample: Sample) -> None:
        """Write the sample of ``now`` (monotonic seconds)."""
        number = int(now // SAMPLE_SECONDS)
        _SLOT.pack_into(self._memory, number % SLOTS * _SLOT.size, number + 1, *sample)

    def samples(self, now: float) -> list[Sample | None]:
        """Return the samples of the hour before ``now``, the oldest first; None where there is none."""
        last = int(now // SAMPLE_SECONDS)
        return [self._at(number) for number in range(last - SLOTS + 1, last + 1)]

    def _at(self, number: int) -> Sample | None:
        if number < 0:
            return None
        found, *values = _SLOT.unpack_from(self._memory, number % SLOTS * _SLOT.size)
        return Sample(*values) if found == number + 1 else None


def rates(samples: list[float | None]) -> list[float | None]:
    """Return the growth of a counter in each second between neighbours; None where one lacks, or the counter is new."""
    pairs = zip([None, *samples], samples)
    return [
        None if before is None or after is None or after < before else (after - before) / SAMPLE_SECONDS
        for before, after in pairs
    ]
