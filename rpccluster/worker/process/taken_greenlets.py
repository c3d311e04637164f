"""Warns in the log when calls have taken all greenlets of a worker for a long time. Runs in the worker's beat."""

from __future__ import annotations

from collections import Counter
from typing import Callable

from rpccluster.log import logger
from rpccluster.worker.live_options import LiveOptions

__all__ = ["TakenGreenlets"]

LONG_SECONDS = 10.0
MOST_METHODS = 3  # named in the log


class TakenGreenlets:
    """Warns once when it begins, and once when it is over."""

    def __init__(self, options: LiveOptions, methods: Callable[[], Counter[str]]) -> None:
        """``methods`` returns how often each method runs."""
        self._options = options
        self._methods = methods
        self._told_of = 0  # nanoseconds, when the last one began that was warned of

    def look(self, taken_at: int, now_ns: int) -> None:
        """Warn if it is due. ``taken_at`` is the worker's `Cell.GREENLETS_TAKEN_AT`, 0 while a greenlet is free."""
        if taken_at and taken_at != self._told_of and now_ns - taken_at >= LONG_SECONDS * 1e9:
            self._told_of = taken_at
            methods = ", ".join(f"{name} ({count})" for name, count in self._methods().most_common(MOST_METHODS))
            text = "All %d greenlets are taken, no call has ended for %.0f seconds: no connection is accepted. In %s"
            logger.warning(
                text, self._options.max_greenlets, (now_ns - taken_at) / 1e9, methods or "calls that were given up"
            )
        elif not taken_at and self._told_of:
            logger.warning("There are greenlets again, after %.0f seconds", (now_ns - self._told_of) / 1e9)
            self._told_of = 0
