"""What `rpccluster.task()` returns to the code of a task: its number, its attempt, and a way to say how far it is.

Runs in the task process; any thread of the task may use it. Imports nothing else of the package.
"""

from __future__ import annotations

from typing import Any, Callable

__all__ = ["Task", "begin", "end", "task"]


class Task:
    """The running task. ``id`` is that of its future, ``attempt`` counts from 1."""

    def __init__(self, id: int, attempt: int, tell: Callable[[Any, Any, Any], None]) -> None:
        self.id = id
        self.attempt = attempt
        self._tell = tell

    def progress(self, done: Any = None, total: Any = None, note: Any = None) -> None:
        """Tell the submitter how far the task is, in whatever units. The last values of each moment arrive.

        Raises TypeError, ValueError or OverflowError if a value is no MessagePack value.
        """
        self._tell(done, total, note)

    def __repr__(self) -> str:
        return f"<Task {self.id}, attempt {self.attempt}>"


_current: Task | None = None


def task() -> Task:
    """Return the task that runs in this process. Raises RuntimeError if none does."""
    if _current is None:
        raise RuntimeError("found no running task here, expected a process of a pool that runs one")
    return _current


def begin(running: Task) -> None:
    """Make ``running`` what `task` returns."""
    global _current
    _current = running


def end() -> None:
    """Let `task` return nothing, until another one begins."""
    global _current
    _current = None
