"""Keeps the master alive when parts of its work fail: it logs the failure, and the rest goes on. Runs in the master.

Any system call may fail for lack of descriptors, memory or processes, so each part of a turn is attempted by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from rpccluster.failure import error_text
from rpccluster.log import escaped, logger
from rpccluster.rate_limit import LogLimiter, and_more

__all__ = ["DESCRIPTORS_KEPT_BACK", "Guard"]

DESCRIPTORS_KEPT_BACK = 24  # a worker takes 4, a new master 3, a reload those of its new listeners and logs


class Guard:
    """Attempts parts of the master's work, and logs their errors, at most one of each part in ten seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """``clock`` returns monotonic seconds."""
        self._limiter = LogLimiter(clock=clock)
        self._has_failed = False

    def take_failure(self) -> bool:
        """Whether something has failed since the last call: it is worth another try, without an event to wait for."""
        has_failed, self._has_failed = self._has_failed, False
        return has_failed

    def attempt(self, what: str, act: Callable[..., object], *arguments: object) -> bool:
        """Call ``act``. Returns whether it raised nothing. ``what``, a constant, completes the log line "Cannot …"."""
        try:
            act(*arguments)
        except Exception as error:
            self._has_failed = True
            is_due, held_back = self._limiter.should_log(what)
            if is_due:
                has_cause = isinstance(error, OSError)  # the system refuses; any other error is a fault of rpccluster
                told = escaped(error_text(error)) + and_more(held_back)
                logger.error("Cannot %s: %s", what, told, exc_info=None if has_cause else error)
            return False
        return True
