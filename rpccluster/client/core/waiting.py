"""Counts the calls of a pool that have not ended yet, and limits them. Sans-I/O; both faces use it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

from rpccluster.errors import TooManyWaiting

__all__ = ["Waiting"]


class Waiting:
    """The calls that wait for a connection or for their reply: ``most`` at once, None for any number.

    Each call is a token, so that a call may `leave` whether or not an interrupt has kept it from entering. ``lock`` is
    held while calls enter, for threads that share a pool.
    """

    def __init__(self, most: int | None, lock: AbstractContextManager[Any]) -> None:
        if most is not None and most < 1:
            raise ValueError(f"found max_waiting {most}, expected at least 1")
        self.most = most
        #: How many calls have been refused.
        self.refused = 0
        self._calls: dict[object, None] = {}
        self._lock = lock

    @property
    def count(self) -> int:
        """How many calls wait."""
        return len(self._calls)

    def enter(self, calls: Collection[object]) -> None:
        """Count ``calls`` in. Raises `TooManyWaiting` if there would be too many; then none of them is counted."""
        if self.most is None:
            for call in calls:
                self._calls[call] = None
            return
        with self._lock:
            if len(self._calls) + len(calls) > self.most:
                self.refused += len(calls)
                found = f"found {len(self._calls)} calls waiting and {len(calls)} more"
                raise TooManyWaiting(f"{found}, expected at most {self.most} (max_waiting); the call did not run")
            for call in calls:
                self._calls[call] = None

    def leave(self, calls: Collection[object]) -> None:
        """Count out those of the ``calls`` that were counted in."""
        for call in calls:
            self._calls.pop(call, None)
