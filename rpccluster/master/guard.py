"""What keeps the master alive under pressure: a failing part is told and the rest goes on. Runs in the master.

The system may run out of descriptors, memory or processes in any call: each part of a turn is attempted by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from rpccluster.failure import error_text
from rpccluster.log import escaped, logger
from rpccluster.rate_limit import LogLimiter, and_more

__all__ = ["DESCRIPTORS_KEPT_BACK", "Guard"]

DESCRIPTORS_KEPT_BACK = 24  # a worker takes 4, a new master 2, a reload those of its new listeners and logs


class Guard:
    """Attempts parts of the master's work; what one raises is logged, now and then."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """``clock`` tells monotonic seconds."""
        self._limiter = LogLimiter(clock=clock)

    def attempt(self, what: str, act: Callable[..., object], *arguments: object) -> bool:
        """Call ``act``; returns whether it raised nothing. ``what`` completes "Cannot …" and is a constant."""
        try:
            act(*arguments)
        except Exception as error:
            is_due, held_back = self._limiter.should_log(what)
            if is_due:
                has_cause = isinstance(error, OSError)  # the system's refusal; anything else is a fault of ours
                told = escaped(error_text(error)) + and_more(held_back)
                logger.error("Cannot %s: %s", what, told, exc_info=None if has_cause else error)
            return False
        return True
