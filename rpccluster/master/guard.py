"""What keeps the master alive under pressure: a failing part is told and the rest goes on. Runs in the master.

The system may run out of descriptors, memory or processes in any call. Each part of a turn is attempted by itself,
and a few descriptors are kept back for commands and for starting workers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from time import monotonic

from rpccluster.failure import error_text
from rpccluster.log import escaped, logger
from rpccluster.rate_limit import LogLimiter, and_more

__all__ = ["DESCRIPTORS_KEPT_BACK", "Guard", "Reserve"]

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


class Reserve:
    """Descriptors that are open for nothing, so that others can be had in their place when there are no more."""

    def __init__(self, size: int = DESCRIPTORS_KEPT_BACK) -> None:
        self._size = size
        self._held: list[int] = []
        self._fill()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Free them for what is done meanwhile; afterwards as many are kept back as can be had."""
        self.close()
        try:
            yield
        finally:
            self._fill()

    def _fill(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._held) < self._size:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Keep nothing back any more; in a forked child, too."""
        while self._held:
            os.close(self._held.pop())
