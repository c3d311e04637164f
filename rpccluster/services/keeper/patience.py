"""Answers calls whose time is over while the store of the items is silent, as a Redis may be. Runs in the keeper.

A call that waits for an item, or for room, ends by `rpccluster.services.keeper.waiting`. This is about those whose verb
was given to the store, which has not answered: they cannot be taken back, but their callers need not wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from rpccluster.services.keeper.waiting import NEVER, Call, Due

__all__ = ["Patience"]

SILENT_SECONDS = 0.25  # without an answer of the store, after which a call with less time is not held up any more
_STALE = 100  # deadlines of calls that are answered


class Patience:
    """The calls that have a deadline, from their arrival to it."""

    def __init__(self, loop: Any, clock: Callable[[], float], busy_since: Callable[[], float]) -> None:
        """``busy_since`` tells since when the store has owed an answer; infinity if it owes none."""
        self._loop = loop
        self._clock = clock
        self._busy_since = busy_since
        self._due: list[Due] = []
        self._most = _STALE  # deadlines, until those of answered calls are forgotten
        self._number = 0
        self._timer: Any = None
        self._wakes_at = NEVER
        #: Gets each call whose time is over, and whether the store is silent: then it answers those that the store has.
        #: Returns False for a call that the store has, as long as that is not silent.
        self.on_over: Callable[[Call, bool], bool] = lambda call, is_silent: True

    def begin(self, call: Call) -> None:
        """Look after ``call``, if it has a deadline."""
        if call.ends_at != NEVER:
            self._add(call.ends_at, call)
            self._sweep()
            self._arm()

    def _sweep(self) -> None:
        """Forget calls that are answered, which hold their values, when there are too many."""
        if len(self._due) > self._most:
            self._due = [due for due in self._due if not due.call.later.is_over]
            heapq.heapify(self._due)
            self._most = 2 * len(self._due) + _STALE

    def _add(self, at: float, call: Call) -> None:
        self._number += 1
        heapq.heappush(self._due, Due(at, self._number, call))

    def _arm(self) -> None:
        at = self._due[0].at if self._due else NEVER
        if at < self._wakes_at:
            if self._timer is not None:
                self._timer.stop()
                self._timer.close()
            self._wakes_at = at
            self._timer = self._loop.timer(max(0.0, at - self._clock()))
            self._timer.start(self._tick)

    def _tick(self) -> None:
        now = self._clock()
        self._wakes_at = NEVER
        silent_at = self._busy_since() + SILENT_SECONDS
        while self._due and self._due[0].at <= now:
            call = heapq.heappop(self._due).call
            if call.ends_at > now:  # a repeat has given it more time
                self.begin(call)
            elif not self.on_over(call, now >= silent_at):
                self._add(min(silent_at, now + SILENT_SECONDS), call)
        self._arm()
