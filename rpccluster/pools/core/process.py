"""A task process as the core sees it: which tasks it has been sent, and how many it is sent ahead.

Short tasks are sent ahead of their time, so that the process need not wait between two of them. A task takes as long as
the last ones did, until it has taken longer; then those behind it are taken back. Pure; runs where a pool is
dispatched.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from rpccluster.pools.core.task import Task

__all__ = ["STALL_SECONDS", "Process"]

STALL_SECONDS = 0.005  # without an end: what is behind the present task is taken back

_AHEAD_SECONDS = 0.005  # of work that a process may have before it
_MOST_AHEAD = 256
_MOST_BYTES = 128 * 1024  # of arguments ahead: more would fill its socket, and gain nothing


class Process:
    """One task process. ``handle`` is its edge's; ``tasks`` are those that it has, in the order they were sent."""

    __slots__ = ("bytes", "depth", "handle", "is_closed", "pace", "since", "tasks")

    def __init__(self, handle: Any = None) -> None:
        self.handle = handle
        self.tasks: deque[Task] = deque()
        self.bytes = 0  # the sizes of `tasks`
        self.is_closed = False  # it is sent nothing any more
        self.since = 0.0  # when its first task came to the front, or the last look at it found it stalled
        self.pace = _AHEAD_SECONDS  # seconds that a task takes
        self.depth = 1  # the most tasks that it is sent

    def note_pace(self, seconds: float, count: int) -> None:
        """Learn that the last ``count`` tasks took ``seconds`` together."""
        self.pace = (self.pace + 3 * seconds / count) / 4 if count < 4 else seconds / count
        self._set_depth()

    def note_stall(self, now: float) -> None:
        """Learn that its present task takes longer than those before."""
        self.since = now
        self.pace = max(self.pace, _AHEAD_SECONDS)
        self._set_depth()

    def _set_depth(self) -> None:
        self.depth = min(max(int(_AHEAD_SECONDS / max(self.pace, 1e-6)), 1), _MOST_AHEAD)

    def takes(self, task: Task) -> bool:
        """Return whether ``task`` fits behind the others, by its size."""
        return not self.tasks or self.bytes + task.size <= _MOST_BYTES

    @property
    def stalls_at(self) -> float | None:
        """When what is behind its present task must be taken back; None if nothing is."""
        return self.since + STALL_SECONDS if len(self.tasks) > 1 and not self.is_closed else None
