"""A loop as the stall watch sees it: for how long its present turn goes on, or that it waits. Runs in the worker.

All this is seen from another thread, and costs the loop nothing while it waits. Then it is in its poll, which shows in
the frame of its thread.
"""

from __future__ import annotations

import contextlib
import time
from types import CodeType, FrameType
from typing import Any, NamedTuple, Protocol

import gevent.hub
from gevent.monkey import get_original

from rpccluster.worker.native.primitives import thread_id

__all__ = ["AsyncioLoop", "HubLoop", "Turn", "Watched"]


class Turn(NamedTuple):
    """A turn of a loop that goes on: the time at which it ``began``, by any clock, and its age in ``seconds``."""

    began: float
    seconds: float


class Watched(Protocol):
    """A loop that runs in one native thread.

    ``name`` begins a log line about it. It is looked at ``looks`` times while it may be held up.
    """

    name: str
    looks: int

    @property
    def thread_id(self) -> int: ...

    def turn(self, frame: FrameType) -> Turn | None:
        """Return the present turn, or None if it waits. ``frame`` is the present one of its thread."""
        ...


class HubLoop:
    """gevent's loop of the thread that makes this. It takes the time after each poll, so its turns are known."""

    name = "The worker"
    looks = 1

    def __init__(self, hub: Any) -> None:
        self.thread_id = thread_id()
        self._loop = hub.loop
        hub.loop.update_now()
        # libev's time of a turn is the wall clock's, libuv's the monotonic one's
        self._clock = time.time if abs(time.time() - hub.loop.now()) < 1.0 else time.monotonic
        in_python: CodeType | None = getattr(getattr(type(hub.loop), "run", None), "__code__", None)
        self._polls = (gevent.hub.Hub.run.__code__, in_python)

    def turn(self, frame: FrameType) -> Turn | None:
        if frame.f_code in self._polls:
            return None
        began = float(self._loop.now())
        return Turn(began, self._clock() - began)


class AsyncioLoop:
    """A loop of `rpccluster.worker.native.before_patch` in the thread of its runner.

    It does not tell when its turn began. So one that is busy is asked for a sign, which it gives in its next turn: the
    present one is as old as that question, and a bit older.
    """

    name = "The asyncio loop"
    looks = 2

    def __init__(self, runner: Any) -> None:
        """``runner`` has the ``loop``, and its ``thread_id``, which is 0 until that runs."""
        self._runner = runner
        self._poll = get_original("selectors", "EpollSelector").select.__code__
        self._asked_at: float | None = None  # None once it has answered

    @property
    def thread_id(self) -> int:
        number: int = self._runner.thread_id
        return number

    def turn(self, frame: FrameType) -> Turn | None:
        if frame.f_back is None or frame.f_code is self._poll:  # uvloop polls without a frame of its own
            return None
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            with contextlib.suppress(RuntimeError):  # it is closed
                self._runner.loop.call_soon_threadsafe(self._answer)
        return Turn(self._asked_at, now - self._asked_at)

    def _answer(self) -> None:
        self._asked_at = None
