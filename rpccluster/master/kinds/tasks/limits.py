"""Decides whether a running task is past a limit, and when to look at it again. Pure; runs in the master.

A deadline needs no look before it is there. Memory needs one each 20 ms while a task runs: it can grow by 100 MB in
that time. What the process itself holds counts at once. What it holds with its descendants counts if two looks in a row
find too much: a child that is just being started shows its parent's memory as its own for a moment.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LOOK_SECONDS", "OUT_OF_MEMORY", "TIMED_OUT", "Seen", "Verdict", "judge", "wants_memory"]

#: Between two looks at the memory of a running task; `rpccluster.tasks.limits` has the first one made.
LOOK_SECONDS = 0.02

TIMED_OUT, OUT_OF_MEMORY = "timed_out", "out_of_memory"

_NEVER = float("inf")


class Seen(NamedTuple):
    """What a look finds. Times are monotonic seconds; memory is in bytes, and None where this look left it out."""

    number: int  # of the running task, 0 for none
    deadline: float = 0.0  # 0 for none
    own: int | None = None
    children: int = 0
    was_over: bool = False  # with its children's memory, at the look before


class Verdict(NamedTuple):
    """``cause`` is the limit that the task has passed, empty for none. ``again_at`` is the next look, if it lives."""

    cause: str
    again_at: float = _NEVER
    is_over: bool = False


def wants_memory(number: int, looked_at: float, most: int, now: float) -> bool:
    """Return whether the memory of the task ``number`` must be read, that was read at ``looked_at``."""
    return bool(number and most) and now >= looked_at + LOOK_SECONDS


def judge(seen: Seen, most: int, looked_at: float, now: float) -> Verdict:
    """Judge a task that may take ``most`` bytes, 0 for any number; ``looked_at`` is the last look at its memory."""
    if not seen.number:
        return Verdict("")
    if seen.deadline and now >= seen.deadline:
        return Verdict(TIMED_OUT)
    again_at = min(seen.deadline or _NEVER, looked_at + LOOK_SECONDS if most else _NEVER)
    if seen.own is None:
        return Verdict("", again_at, seen.was_over)
    is_over = seen.own + seen.children > most
    if seen.own > most or (is_over and seen.was_over):
        return Verdict(OUT_OF_MEMORY)
    return Verdict("", again_at, is_over)
