"""What can go wrong in a benchmark, in one type. Bench process only."""

from __future__ import annotations

__all__ = ["BenchError"]


class BenchError(Exception):
    """A peer that does not start or answers wrongly, a missing tool; its text says what was found and expected."""
