"""Tells in the log that calls have had all greenlets of a worker for long. Decides alone, for the worker's beat."""

from __future__ import annotations

from collections import Counter
from typing import Callable

from rpccluster.log import logger
from rpccluster.worker.live_options import LiveOptions

__all__ = ["TakenGreenlets"]

LONG_SECONDS = 10.0
MOST_METHODS = 3  # that are named


class TakenGreenlets:
    """Looks again and again, and tells once when it begins and once when it is over."""

    def __init__(self, options: LiveOptions, methods: Callable[[], Counter[str]]) -> None:
        """``methods`` tells what the greenlets run."""
        self._options = options
        self._methods = methods
        self._told_of = 0  # nanoseconds, when that began which was told last

    def look(self, taken_at: int, now_ns: int) -> None:
        """``taken_at`` is what the worker's cell says."""
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
