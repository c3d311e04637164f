"""When the process of a slot may be started again, after those before it have ended. Pure; runs in the master.

The last ends of a slot are kept as they were, and the pause is derived from them: no counter, nothing to reset.
Failures are ends before a process was ready, and ends by its own doing within seconds after. Two in a row are free,
then the pause doubles; it never gives up. Who was ready and is killed, from outside or at a limit, is replaced at
once, however often. An end with status 0 is no failure, but costs a moment.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from rpccluster.system import Exit

__all__ = ["EARLY_SECONDS", "RESTART_DELAY_SECONDS", "End", "Restarts", "Slot", "pause_seconds"]

EARLY_SECONDS = 5.0
FREE_FAILURES = 2  # so many in a row cost no pause
RESTART_DELAY_SECONDS = 1.0
RESTART_DELAY_MAX_SECONDS = 30.0
KEPT_ENDS = 20

# KILL and TERM are how others end a process; INT and QUIT are what we tell people to send to a worker that is to go.
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}


class End(NamedTuple):
    """How a process ended that nobody had told to. Times are monotonic seconds."""

    exit: Exit
    booted_at: float
    ready_at: float | None  # None: it never was
    at: float

    @property
    def is_clean(self) -> bool:
        """Whether it ended with status 0."""
        return self.exit.code == 0

    @property
    def is_failure(self) -> bool:
        """Whether it counts for the pause."""
        if self.is_clean:
            return False
        if self.ready_at is None:
            return True
        return self.at - self.ready_at < EARLY_SECONDS and _is_own_doing(self.exit)


@dataclass
class Slot:
    """What is remembered of one slot."""

    ends: deque[End] = field(default_factory=lambda: deque(maxlen=KEPT_ENDS))
    survivor_booted_at: float = float("-inf")  # of the youngest that was ready for `EARLY_SECONDS`

    def failures(self) -> list[End]:
        """The failures in a row: those since the last one that lived on."""
        return [end for end in self.ends if end.is_failure and end.booted_at > self.survivor_booted_at]

    def start_at(self) -> float:
        """When the next process may be started; long ago if at once."""
        failures = self.failures()
        moments = [end.booted_at + RESTART_DELAY_SECONDS for end in self.ends if end.is_clean]
        if failures:
            moments.append(failures[-1].at + pause_seconds(len(failures)))
        return max(moments, default=float("-inf"))


class Restarts:
    """All slots of one cluster."""

    def __init__(self) -> None:
        self._slots: dict[int, Slot] = {}

    def note_end(self, slot: int, end: End) -> Slot:
        """A process ended unasked; returns what is remembered of its slot."""
        kept = self._slots.setdefault(slot, Slot())
        kept.ends.append(end)
        if end.ready_at is not None and end.at - end.ready_at >= EARLY_SECONDS:
            self.note_survivor(slot, end.booted_at)
        return kept

    def note_survivor(self, slot: int, booted_at: float) -> None:
        """One that was started then has been ready for `EARLY_SECONDS`: it does not die in a loop."""
        kept = self._slots.get(slot)
        if kept is not None:
            kept.survivor_booted_at = max(kept.survivor_booted_at, booted_at)

    def start_at(self) -> Mapping[int, float]:
        """For each slot in which one has ended, when the next may be started."""
        return {slot: kept.start_at() for slot, kept in self._slots.items()}


def pause_seconds(failures: int) -> float:
    """The pause that so many failures in a row have earned."""
    extra = failures - FREE_FAILURES
    return min(RESTART_DELAY_MAX_SECONDS, RESTART_DELAY_SECONDS * 2 ** min(extra - 1, 10)) if extra > 0 else 0.0


def _is_own_doing(exit_: Exit) -> bool:
    return exit_.signal not in _FROM_OUTSIDE
