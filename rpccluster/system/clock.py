"""Deadlines on the monotonic clock, and the machine's time zone."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo

__all__ = ["Deadline", "time_zone"]

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
