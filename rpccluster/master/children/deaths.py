"""The last deaths of a slot, and the pause before its next process. Pure; runs in the master.

A death is data: when, how, how long the process was ready, and why. A slot keeps its last deaths, and the pause is
computed from them, so there is no counter to reset.

A failure is an end before the process was ready, or an end of its own within seconds after. Two failures in a row cost
no pause; then the pause doubles, and restarts never stop. "In a row" means since the start of the slot's last process
that was ready for some seconds; other slots do not count. A process that was ready and is killed, from outside or at a
limit, is replaced at once, however often. An end with status 0 is no failure, but the next start comes
``restart_delay`` after the last start at the earliest. An end that the master has asked for costs nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import NamedTuple

from rpccluster.system import Exit

__all__ = [
    "EARLY_SECONDS",
    "KEPT_DEATHS",
    "TOO_OFTEN",
    "TOO_OFTEN_SECONDS",
    "Death",
    "failures_in_a_row",
    "has_failed_too_often",
    "in_short",
    "pause_seconds",
    "start_at",
]

EARLY_SECONDS = 5.0
FREE_FAILURES = 2  # that cost no pause
KEPT_DEATHS = 20  # of a slot; more failures make no longer pause
TOO_OFTEN, TOO_OFTEN_SECONDS = 5, 600.0  # failures of an essential group, and within which time
LONGEST_REASON = 300  # characters that are kept; a traceback stands in the log, and would make ``status`` too long

_NEVER = float("-inf")

# Others end a process with KILL and TERM; INT and QUIT end a worker at once, as the README says.
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}


class Death(NamedTuple):
    """The end of one process. Times are monotonic seconds."""

    exit: Exit
    booted_at: float
    ready_at: float | None  # None if it never was
    at: float
    reason: str = ""
    was_asked: bool = False  # the master had told it to end, or killed it for reasons of its own
    was_at_fault: bool = False  # the master killed it at ``timeout`` or ``ready_timeout``
    was_at_work: bool = False  # it was the end of its work, which counts for nothing

    @property
    def ready_seconds(self) -> float | None:
        """Seconds for which it was ready; None if it never was."""
        return None if self.ready_at is None else self.at - self.ready_at

    @property
    def is_failed_boot(self) -> bool:
        """Whether it never got ready, unasked."""
        return self.ready_at is None and not self.was_asked

    @property
    def is_clean(self) -> bool:
        """Whether it ended with status 0, unasked."""
        return self.exit.code == 0 and not (self.was_asked or self.was_at_work)

    @property
    def is_failure(self) -> bool:
        """Whether it counts for the pause."""
        if self.was_asked or self.was_at_work or self.exit.code == 0:
            return False
        lived = self.ready_seconds
        return lived is None or (lived < EARLY_SECONDS and self.exit.signal not in _FROM_OUTSIDE)

    @property
    def counts_for_the_cluster(self) -> bool:
        """Whether it is a failure for which an essential group may stop the cluster."""
        return self.is_failure or (self.was_at_fault and not self.was_asked)


def has_failed_too_often(deaths: Iterable[Death], now: float) -> bool:
    """Return whether an essential group stops the cluster after these deaths of all its slots."""
    recent = (death for death in deaths if death.counts_for_the_cluster and death.at > now - TOO_OFTEN_SECONDS)
    return sum(1 for _ in recent) >= TOO_OFTEN


def in_short(reason: str) -> str:
    """Return the first line of ``reason``, or as much of it as is kept."""
    return reason.partition("\n")[0][:LONGEST_REASON]


def failures_in_a_row(deaths: Iterable[Death], survivor_booted_at: float = _NEVER) -> list[Death]:
    """Return the failures since the start of the last process that was ready for `EARLY_SECONDS`.

    ``survivor_booted_at`` is the start of the youngest such process that still lives.
    """
    deaths = list(deaths)
    survivors = [death.booted_at for death in deaths if (death.ready_seconds or 0.0) >= EARLY_SECONDS]
    since = max([survivor_booted_at, *survivors])
    return [death for death in deaths if death.is_failure and death.booted_at > since]


def start_at(deaths: Iterable[Death], delay: float, most: float, survivor_booted_at: float = _NEVER) -> float:
    """Return when the next process of the slot may start; minus infinity if at once.

    ``delay`` and ``most`` are ``restart_delay`` and ``restart_delay_max``.
    """
    deaths = list(deaths)
    failures = failures_in_a_row(deaths, survivor_booted_at)
    moments = [death.booted_at + min(delay, most) for death in deaths if death.is_clean]
    if failures:
        moments.append(failures[-1].at + pause_seconds(len(failures), delay, most))
    return max(moments, default=_NEVER)


def pause_seconds(failures: int, delay: float, most: float) -> float:
    """Return the pause after ``failures`` failures in a row."""
    extra = failures - FREE_FAILURES
    return min(most, delay * 2 ** min(extra - 1, KEPT_DEATHS)) if extra > 0 else 0.0
