"""How the processes of a slot have ended, and the pause that this has earned the next one. Pure; runs in the master.

A death is data: when, how, for how long the process was ready, why. The last ones of a slot are kept, and everything
is derived from them, so there is no counter and nothing to reset.

Failures are ends before a process was ready, and ends by its own doing within seconds after. Two in a row are free,
then the pause doubles; it never gives up. In a row means: since the start of the last process of that slot that was
ready for some seconds; what lives in other slots does not count. A process that was ready and is killed, from outside
or at a limit, is replaced at once, however often. An end with status 0 is no failure, but the next start comes a moment
after the last start at the earliest. What the master itself has asked for costs nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import NamedTuple

from rpccluster.system import Exit

__all__ = ["EARLY_SECONDS", "KEPT_DEATHS", "Death", "failures_in_a_row", "pause_seconds", "start_at"]

EARLY_SECONDS = 5.0
FREE_FAILURES = 2  # so many in a row cost no pause
KEPT_DEATHS = 20  # more failures than that earn no longer pause

_NEVER = float("-inf")

# KILL and TERM are how others end a process; INT and QUIT are what we tell people to send to a worker that is to go.
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}


class Death(NamedTuple):
    """How one process has ended. Times are monotonic seconds."""

    exit: Exit
    booted_at: float
    ready_at: float | None  # None: it never was
    at: float
    reason: str = ""
    was_asked: bool = False  # the master had told it to, or killed it for its own reasons

    @property
    def ready_seconds(self) -> float | None:
        """For how long it was ready; None if it never was."""
        return None if self.ready_at is None else self.at - self.ready_at

    @property
    def is_clean(self) -> bool:
        """Whether it ended with status 0, unasked."""
        return self.exit.code == 0 and not self.was_asked

    @property
    def is_failure(self) -> bool:
        """Whether it counts for the pause."""
        if self.was_asked or self.exit.code == 0:
            return False
        lived = self.ready_seconds
        return lived is None or (lived < EARLY_SECONDS and self.exit.signal not in _FROM_OUTSIDE)


def failures_in_a_row(deaths: Iterable[Death], survivor_booted_at: float = _NEVER) -> list[Death]:
    """The failures since the start of the last process that was ready for `EARLY_SECONDS`.

    ``survivor_booted_at`` is when the youngest such one was started that still lives.
    """
    deaths = list(deaths)
    survivors = [death.booted_at for death in deaths if (death.ready_seconds or 0.0) >= EARLY_SECONDS]
    since = max([survivor_booted_at, *survivors])
    return [death for death in deaths if death.is_failure and death.booted_at > since]


def start_at(deaths: Iterable[Death], delay: float, most: float, survivor_booted_at: float = _NEVER) -> float:
    """When the next process of a slot with these deaths may be started; minus infinity if at once.

    ``delay`` and ``most`` are ``restart_delay`` and ``restart_delay_max``.
    """
    deaths = list(deaths)
    failures = failures_in_a_row(deaths, survivor_booted_at)
    moments = [death.booted_at + min(delay, most) for death in deaths if death.is_clean]
    if failures:
        moments.append(failures[-1].at + pause_seconds(len(failures), delay, most))
    return max(moments, default=_NEVER)


def pause_seconds(failures: int, delay: float, most: float) -> float:
    """The pause that so many failures in a row have earned."""
    extra = failures - FREE_FAILURES
    return min(most, delay * 2 ** min(extra - 1, KEPT_DEATHS)) if extra > 0 else 0.0
