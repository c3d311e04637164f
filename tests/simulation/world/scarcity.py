"""Lets masters run out of descriptors or of disk, by the limits of this process, as long as a master takes a step.

The kernel itself refuses then, so nothing is patched: `RLIMIT_NOFILE` stands for EMFILE, and `RLIMIT_FSIZE`, whose
EFBIG comes from the same calls, for a full disk.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

__all__ = ["Scarcity", "closed_ranks"]

_LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)


class Scarcity:
    """What masters lack, and until when. ``room`` is the number of descriptors that they may still open."""

    def __init__(self) -> None:
        self.table_is_full_until = self.disk_is_full_until = 0.0
        self.room = 0
        self._usual: dict[int, tuple[int, int]] = {}

    def end(self, now: float) -> None:
        """Let everything be there again from ``now`` on."""
        self.table_is_full_until = min(self.table_is_full_until, now)
        self.disk_is_full_until = min(self.disk_is_full_until, now)

    def is_over(self, now: float) -> bool:
        """Return whether nothing is lacking any more."""
        return now >= self.table_is_full_until and now >= self.disk_is_full_until

    @contextlib.contextmanager
    def imposed(self, now: float) -> Iterator[None]:
        """Let a master that takes a step ``now`` lack what it should."""
        self._usual = {limit: resource.getrlimit(limit) for limit in _LIMITS}
        if now < self.table_is_full_until:
            lowest = os.dup(0)
            os.close(lowest)
            self._limit(resource.RLIMIT_NOFILE, lowest + self.room)
        if now < self.disk_is_full_until:
            self._limit(resource.RLIMIT_FSIZE, 0)
        try:
            yield
        finally:
            self._restore()

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Let another process, which lacks nothing, act in the middle of a master's step."""
        imposed = {limit: resource.getrlimit(limit) for limit in self._usual}
        usual = dict(self._usual)
        self._restore()
        try:
            yield
        finally:
            self._usual = usual
            for limit, (most, _) in imposed.items():
                self._limit(limit, most)

    def _limit(self, limit: int, most: int) -> None:
        resource.setrlimit(limit, (most, self._usual[limit][1]))

    def _restore(self) -> None:
        for limit, usual in self._usual.items():
            resource.setrlimit(limit, usual)
        self._usual = {}


@contextlib.contextmanager
def closed_ranks() -> Iterator[None]:
    """Leave no number free below the highest descriptor, so that numbers mean the same in every process."""
    highest = max(map(int, os.listdir("/proc/self/fd")))
    made = [os.dup(0)]
    while made[-1] < highest:
        made.append(os.dup(0))
    try:
        yield
    finally:
        for descriptor in made:
            os.close(descriptor)
