"""When a dead worker may be replaced: at once, unless workers die in a loop. Pure; runs in the master.

Counted are deaths before a worker was ready, and deaths by its own doing within seconds after. A worker that
somebody killed from outside is replaced at once, however often.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from rpccluster.system import Exit

__all__ = ["Restarts"]

EARLY_SECONDS = 5.0
FREE_FAILURES = 2  # so many in a row cost no delay
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 30.0

_OWN_DOING = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS}


@dataclass
class Restarts:
    """The failures in a row and the pause they have earned."""

    boot_failures: int = 0
    early_deaths: int = 0
    spawn_at: float = 0.0  # monotonic seconds before which no worker is started

    def note_ready(self) -> None:
        """A worker has become ready: the service can be loaded."""
        self.boot_failures = 0

    def note_survivor(self) -> None:
        """A worker has been ready for longer than `EARLY_SECONDS`: they do not die in a loop."""
        self.early_deaths = 0

    def note_death(self, exit_: Exit, ready_for_seconds: float | None, now: float) -> float:
        """A worker died unasked; it had been ready for so long, None if never. Returns the pause in seconds."""
        if ready_for_seconds is None:
            self.boot_failures += 1
        elif ready_for_seconds < EARLY_SECONDS and _is_own_doing(exit_):
            self.early_deaths += 1
        else:
            return 0.0
        extra = self.boot_failures + self.early_deaths - FREE_FAILURES
        pause = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(extra - 1, 10)) if extra > 0 else 0.0
        self.spawn_at = max(self.spawn_at, now + pause)
        return pause


def _is_own_doing(exit_: Exit) -> bool:
    return exit_.signal is None or exit_.signal in _OWN_DOING
