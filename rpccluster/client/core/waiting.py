"""Counts the calls of a pool that have not ended yet, and limits them. Sans-I/O; both faces use it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from rpccluster.errors import TooManyWaiting

__all__ = ["Waiting"]


class Waiting:
    """Counts calls that wait for a connection or for their reply, at most ``most``; None means no limit.

    It holds ``lock`` while it counts, for threads that share a pool.
    """

    def __init__(self, most: int | None, lock: AbstractContextManager[Any]) -> None:
        if most is not None and most < 1:
            raise ValueError(f"found max_waiting {most}, expected at least 1")
        self.most = most
        self.count = 0
        #: How many calls have been refused.
        self.refused = 0
        self._lock = lock

    def enter(self, calls: int = 1) -> None:
        """Add ``calls`` to the count. Raises `TooManyWaiting`, and adds none, if there would be too many."""
        with self._lock:
            if self.most is not None and self.count + calls > self.most:
                self.refused += calls
                found = f"found {self.count} calls waiting and {calls} more"
                raise TooManyWaiting(f"{found}, expected at most {self.most} (max_waiting); the call did not run")
            self.count += calls

    def leave(self, calls: int = 1) -> None:
        """Take ended calls off the count."""
        with self._lock:
            self.count -= calls
