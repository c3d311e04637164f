"""The limits of a task that its own process keeps: the soft one, the hard stop of memory, the bell for the master.

Runs in the task process, in its main thread. The master keeps the hard limits: it reads the cells, and kills.
"""

from __future__ import annotations

import resource
import signal
import time
from typing import Any

from rpccluster.errors import SoftTimeLimit
from rpccluster.system.clock import Timer

__all__ = ["LOOK_NS", "Bell", "MemoryStop", "SoftLimit"]

LOOK_NS = 20_000_000  # between two looks of the master at the memory of a running task
_MEMORY_FACTOR = 1.5  # of max_memory, for the hard stop: the master comes first, unless memory is taken at one blow


class SoftLimit:
    """Raises `SoftTimeLimit` in the running task when its time is over, also in a call that waits."""

    def __init__(self) -> None:
        """Take SIGALRM. Call it in the main thread."""
        self._seconds = 0.0  # of the running task; 0 if nothing may be raised
        signal.signal(signal.SIGALRM, self._ring)

    def begin(self, seconds: float) -> None:
        """Let the limit run from now on, if it is not 0."""
        if seconds:
            self._seconds = seconds
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def end(self) -> None:
        """Raise nothing from now on. The limit may still strike on the way here, but not after."""
        if self._seconds:
            self._seconds = 0.0
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, self._ring)  # the task may have taken it

    def _ring(self, signum: int, frame: Any) -> None:
        if self._seconds:
            raise SoftTimeLimit(f"the task has run for {self._seconds:g} seconds (soft_timeout)")


class MemoryStop:
    """Keeps the process from taking more than half beyond ``max_memory``, whatever the master sees."""

    def __init__(self, max_memory: int) -> None:
        """Set the limit, if it is not 0. Source: setrlimit(2), RLIMIT_DATA."""
        self._most = int(max_memory * _MEMORY_FACTOR)
        self._hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        if self._most and self._hard != resource.RLIM_INFINITY:
            self._most = min(self._most, self._hard)
        self.set()

    @property
    def is_set(self) -> bool:
        """Whether there is a limit."""
        return bool(self._most)

    def set(self) -> None:
        """Put the limit in force."""
        if self._most:
            resource.setrlimit(resource.RLIMIT_DATA, (self._most, self._hard))

    def lift(self) -> None:
        """Suspend the limit: what follows must not fail, and takes little."""
        if self._most:
            resource.setrlimit(resource.RLIMIT_DATA, (self._hard, self._hard))


class Bell:
    """Wakes the master when a task needs a look, without a system call for most tasks.

    If the timer is set to a moment before, the master looks then, and finds in the cells when to look next.
    """

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._set_to = 0

    def ring_by(self, at_ns: int) -> None:
        """Have the master look at ``at_ns`` at the latest; the cells say already why. Raises OSError."""
        if not time.monotonic_ns() < self._set_to <= at_ns:
            self._timer.set(at_ns)
            self._set_to = at_ns
