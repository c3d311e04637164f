"""Watches the loops of a worker from a native thread, and tells of one that is held up. Runs in the worker.

The watch looks once in ``stall_warning``. A turn of the hub that lasts longer is seen by such a look before that, and
looked at again just then. So a look costs a few microseconds, a call nothing, and no stall is missed. The asyncio loop
does not tell when a turn began: there a stall may be missed that is not much longer than ``stall_warning``.

While C code holds the GIL, no thread of the process runs. So each look sets a timer of the master's a bit ahead, which
the master notices if no look follows (`rpccluster.master.kinds.stalls`). The watch tells the rest when it runs again.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

from rpccluster.ipc.scoreboard import CommonCell, Row
from rpccluster.log import logger
from rpccluster.rate_limit import LogLimiter, and_more
from rpccluster.system.clock import Timer
from rpccluster.worker.live_options import LiveOptions
from rpccluster.worker.native.held_up import Stack, stack_of
from rpccluster.worker.native.primitives import allocate_lock, start_new_thread
from rpccluster.worker.native.watched import Watched

__all__ = ["StallWatch"]

AGAIN_SECONDS = 60.0  # between two lines about one method
LATE_SECONDS = 0.5  # after a look is due, until the master tells instead
SHORTEST_SECONDS = 0.005  # between two looks
_NEVER_NS = 1 << 62


class StallWatch:
    """The watch over the loops of one worker. ``start`` and ``stop`` run in the hub's thread."""

    def __init__(self, loops: Sequence[Watched], options: LiveOptions, row: Row, timer: Timer | None) -> None:
        """It follows ``options``, and counts in ``row``; the master watches ``timer``."""
        self._loops = loops
        self._options = options
        self._row = row
        self._timer = timer
        self._told: dict[Watched, float] = {}  # the turn of each loop that was told last
        self._limiter = LogLimiter(AGAIN_SECONDS)
        self._changed = allocate_lock()  # free when the thread shall look at once
        self._changed.acquire()
        self.is_running = self._is_stopped = False
        options.follow(self._follow_options)

    def start(self) -> None:
        """Begin to watch, unless ``stall_warning`` is 0."""
        if self._options.stall_warning and not self.is_running and not self._is_stopped:
            self.is_running = True
            start_new_thread(self._work, ())

    def stop(self) -> None:
        """End the watch for good. Its thread ends soon."""
        self._is_stopped = True
        self._wake()

    def _follow_options(self, options: LiveOptions, changed: frozenset[str]) -> None:
        if "stall_warning" in changed:
            self.start()
            self._wake()

    def _wake(self) -> None:
        if self._changed.locked():  # nobody else frees it
            self._changed.release()

    # -- in the thread

    def _work(self) -> None:
        due = time.monotonic()
        while not self._is_stopped:
            warning = self._options.stall_warning
            if warning:
                seconds = self._try_to_look(warning, time.monotonic() - due)
                due = time.monotonic() + seconds
            else:
                seconds, due = -1.0, math.inf  # until that changes
                self._set_timer(_NEVER_NS)
            self._changed.acquire(True, seconds)
        self._set_timer(_NEVER_NS)
        self.is_running = False

    def _try_to_look(self, warning: float, late: float) -> float:
        try:
            return self._look(warning, late)
        except Exception:  # frames change while they are read
            logger.exception("Cannot look at the loops of the worker")
            return warning

    def _look(self, warning: float, late: float) -> float:
        """Look at each loop, ``late`` seconds after that was due. Returns seconds to the next look."""
        frames: Any = sys._current_frames()
        try:
            return self._look_at(frames, warning, late)
        finally:
            frames.clear()  # its own is among them: the two would keep each other, and all that threads hold

    def _look_at(self, frames: Any, warning: float, late: float) -> float:
        seconds, is_held_up = warning, False
        for loop in self._loops:
            left = self._left(loop, frames.get(loop.thread_id), warning)
            is_held_up = is_held_up or left <= 0
            seconds = min(seconds, left if left > 0 else warning, warning / loop.looks)
        if late >= LATE_SECONDS and not is_held_up:
            self._row[CommonCell.STALLS] += 1  # the master has told it, and it is over
        self._set_timer(time.monotonic_ns() + int((seconds + LATE_SECONDS) * 1e9))
        return max(seconds, SHORTEST_SECONDS)

    def _left(self, loop: Watched, frame: Any, warning: float) -> float:
        """Return how many seconds the present turn of ``loop`` may still take; tell if that is none."""
        turn = None if frame is None else loop.turn(frame)
        if turn is None or turn.seconds < warning:
            return warning - (0.0 if turn is None else turn.seconds)
        if self._told.get(loop) != turn.began:
            self._told[loop] = turn.began
            self._tell(loop, turn.seconds, stack_of(frame))
        return 0.0

    def _tell(self, loop: Watched, seconds: float, stack: Stack) -> None:
        self._row[CommonCell.STALLS] += 1
        is_due, held_back = self._limiter.should_log(stack.subject)
        if is_due:
            logger.warning("%s is held up, for %.2f s so far, by %s%s", loop.name, seconds, stack, and_more(held_back))

    def _set_timer(self, at_ns: int) -> None:
        if self._timer is not None:
            with contextlib.suppress(OSError):
                self._timer.set(at_ns)
