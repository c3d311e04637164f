"""Deadlines on the monotonic clock."""

from __future__ import annotations

import time
from dataclasses import dataclass

__all__ = ["Deadline"]


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
