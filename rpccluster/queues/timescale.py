"""The clock of an engine: seconds that go on over restarts and boots, and do not care when the wall clock is set.

Between two boots of the machine the wall clock is all there is, so the time that it was off is taken from it, once.
"""

from __future__ import annotations

import time
from typing import Callable, NamedTuple

__all__ = ["Kept", "Timescale", "boot_id"]

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """Return what names this boot of the machine; empty where the kernel does not tell."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _boot_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Kept(NamedTuple):
    """A moment, on each of the clocks: ``at`` is the engine's own."""

    boot: str
    booted_for: float
    wall: float
    at: float


class Timescale:
    """Tells the engine's time."""

    def __init__(
        self,
        kept: Kept | None = None,
        boot: str = "",
        booted_for: Callable[[], float] = _boot_seconds,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Go on from ``kept``, a moment of an earlier run."""
        self._boot = boot
        self._booted_for = booted_for
        self._wall = wall
        self._offset = 0.0
        if kept is not None and kept.boot == boot:
            self._offset = kept.at - kept.booted_for
        elif kept is not None:
            self._offset = kept.at + max(0.0, wall() - kept.wall) - booted_for()

    def now(self) -> float:
        """Return the engine's time, in seconds."""
        return self._booted_for() + self._offset

    def keep(self) -> Kept:
        """Return this moment, with which a later run goes on."""
        booted_for = self._booted_for()
        return Kept(self._boot, booted_for, self._wall(), booted_for + self._offset)
