"""How a task ends, and which ends are repeated after which pause. Pure; runs where a pool is dispatched."""

from __future__ import annotations

__all__ = [
    "CANCELLED",
    "FAILURES",
    "OK",
    "OUT_OF_MEMORY",
    "PROCESS_LOST",
    "RAISED",
    "REJECTED",
    "REPEATED",
    "TIMED_OUT",
    "of_cause",
    "pause_seconds",
]

OK = "ok"
RAISED = "raised"
TIMED_OUT = "timed_out"
PROCESS_LOST = "process_lost"
OUT_OF_MEMORY = "out_of_memory"
CANCELLED = "cancelled"
REJECTED = "rejected"

FAILURES = (RAISED, TIMED_OUT, PROCESS_LOST, OUT_OF_MEMORY, CANCELLED, REJECTED)
#: A task that was cancelled is no longer wanted, and one that was rejected would be rejected again.
REPEATED = frozenset({RAISED, TIMED_OUT, PROCESS_LOST, OUT_OF_MEMORY})
_FIRST_PAUSE = 0.1  # seconds
_LONGEST_PAUSE = 30.0
_DOUBLINGS = 9  # by then it is the longest, and a power of a thousand would be no float
_CAUSES = {"timed_out": TIMED_OUT, "out_of_memory": OUT_OF_MEMORY, "cancelled": CANCELLED}


def pause_seconds(attempt: int) -> float:
    """Return the pause after the failure of ``attempt``, which counts from 1."""
    return min(_FIRST_PAUSE * 2.0 ** min(attempt - 1, _DOUBLINGS), _LONGEST_PAUSE)


def of_cause(cause: str) -> str:
    """Return how a task has ended whose process has, for ``cause``: it was killed for the task, else lost it."""
    return _CAUSES.get(cause, PROCESS_LOST)
