"""Deadlines and timers on the monotonic clock, and the machine's time zone."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo

__all__ = ["Deadline", "Timer", "time_zone"]

_MACHINES = "/etc/localtime"  # localtime(5)


@dataclass(frozen=True)
class Deadline:
    """One timeout that several steps share. ``at`` is a time of the monotonic clock; None means never."""

    at: float | None

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """Return the deadline ``seconds`` from now; None means never."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    def is_over(self) -> bool:
        """Return whether no time is left."""
        return self.at is not None and time.monotonic() >= self.at


_TFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_TFD_TIMER_ABSTIME = 1
_NANOSECONDS = 1_000_000_000


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Timer:
    """A descriptor that is readable from a moment on. Forked processes share it: one sets it, another one watches it.

    Source: timerfd_create(2). Linux alone; the standard library has it from Python 3.13 on.
    """

    def __init__(self) -> None:
        """Make a timer that is not set. Raises OSError."""
        self._c = _library()
        self._spec = _Itimerspec()
        self._descriptor = self._c.timerfd_create(time.CLOCK_MONOTONIC, _TFD_FLAGS)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def fileno(self) -> int:
        """Return the descriptor; -1 after `close`."""
        return int(self._descriptor)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._descriptor < 0

    def set(self, at_ns: int) -> None:
        """Have it readable from ``at_ns`` on, in monotonic nanoseconds, and not before. Raises OSError."""
        value = self._spec.value
        value.seconds, value.nanoseconds = divmod(max(at_ns, 1), _NANOSECONDS)
        if self._c.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def drain(self) -> bool:
        """Make it unreadable until it is set again. Returns whether its moment has passed."""
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self._descriptor, 8))
        return False

    def close(self) -> None:
        """Close this process's descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def time_zone(name: str = "") -> tzinfo:
    """Return the time zone ``name``, or that of this machine: of TZ, else of /etc/localtime, else UTC.

    Where TZ is no name but a rule, only the present offset is known. Raises ValueError or OSError for an unknown name.
    """
    from zoneinfo import ZoneInfo  # late, as few processes need it

    if name:
        return ZoneInfo(name)
    of_user = os.environ.get("TZ")
    if of_user is not None:
        with contextlib.suppress(ValueError, OSError):
            return ZoneInfo(of_user.lstrip(":") or "UTC")
        return datetime.now().astimezone().tzinfo or timezone.utc
    with contextlib.suppress(ValueError, OSError), open(_MACHINES, "rb") as file:
        return ZoneInfo.from_file(file)
    return timezone.utc
