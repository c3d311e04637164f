"""One timeout carried through many steps, on the monotonic clock."""

from __future__ import annotations

import time
from dataclasses import dataclass

__all__ = ["Deadline"]


@dataclass(frozen=True)
class Deadline:
    """One timeout carried through many steps; ``at`` is on the monotonic clock, None means never."""

    at: float | None

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """The deadline ``seconds`` from now; None means never."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    def left(self) -> float | None:
        """Seconds left, never below 0; None means for ever."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self.at is not None and time.monotonic() >= self.at
