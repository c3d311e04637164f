"""Limits how often similar lines are logged, so that repeated failures cannot fill the log.

Only decides: no I/O, and the clock is passed in. Its user writes the lines; any process.
"""

from __future__ import annotations

from time import monotonic
from typing import Callable

__all__ = ["LogLimiter", "and_more"]

INTERVAL_SECONDS = 10.0  # between two lines about one subject


class LogLimiter:
    """Lets one line about each subject through in ``interval_seconds``, and counts the lines that it holds back.

    A subject is a constant of the code, such as an option's name, and never text from outside, because the limiter
    remembers each one::

        is_due, held_back = limiter.should_log("idle_timeout")
        if is_due:
            logger.info("Closing the connection of %s: it idles%s", peer, and_more(held_back))
    """

    def __init__(self, interval_seconds: float = INTERVAL_SECONDS, *, clock: Callable[[], float] = monotonic) -> None:
        """``clock`` returns monotonic seconds."""
        self._interval = interval_seconds
        self._clock = clock
        self._due_at: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def should_log(self, subject: str) -> tuple[bool, int]:
        """Return whether a line about ``subject`` may be logged now, and how many were held back since the last one."""
        now = self._clock()
        if now < self._due_at.get(subject, now):
            self._held_back[subject] = self._held_back.get(subject, 0) + 1
            return False, 0
        self._due_at[subject] = now + self._interval
        return True, self._held_back.pop(subject, 0)


def and_more(held_back: int) -> str:
    """Return the end of a line that stands for ``held_back`` more; empty if there are none."""
    return f" (and {held_back} more like this since the last such line)" if held_back else ""
