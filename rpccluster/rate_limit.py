"""How often a line of one kind may stand in the log, so that whoever fails often cannot fill it.

Decides alone: no I/O, the clock is passed in. What is logged, and where, is its user's; any process.
"""

from __future__ import annotations

from time import monotonic
from typing import Callable

__all__ = ["LogLimiter", "and_more"]

INTERVAL_SECONDS = 10.0  # between two lines of one kind


class LogLimiter:
    """Lets one line of each kind through in ``interval_seconds`` and counts those it holds back.

    A kind is a constant of the code, such as an option's name, never text from outside: each is remembered::

        is_due, held_back = limiter.should_log("idle_timeout")
        if is_due:
            logger.info("Closing the connection of %s: it idles%s", peer, and_more(held_back))
    """

    def __init__(self, interval_seconds: float = INTERVAL_SECONDS, *, clock: Callable[[], float] = monotonic) -> None:
        """``clock`` tells monotonic seconds."""
        self._interval = interval_seconds
        self._clock = clock
        self._due_at: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def should_log(self, kind: str) -> tuple[bool, int]:
        """Whether a line of ``kind`` may be logged now, and if so how many were held back since the last one."""
        now = self._clock()
        if now < self._due_at.get(kind, now):
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return False, 0
        self._due_at[kind] = now + self._interval
        return True, self._held_back.pop(kind, 0)


def and_more(held_back: int) -> str:
    """The end of a line that stands for ``held_back`` more; empty for none."""
    return f" (and {held_back} more like this since the last such line)" if held_back else ""
