"""The tasks that wait: the highest priority goes first, but each eighth pick is the oldest, whatever its priority.

So nothing waits for ever behind a stream of what is more urgent. Pure; runs where a pool is dispatched.
"""

from __future__ import annotations

from collections import deque

from rpccluster.pools.core.task import State, Task

__all__ = ["OLDEST_EACH", "Waiting"]

OLDEST_EACH = 8

_WAITING = State.WAITING
_MOST_LEFT = 64  # of those that were cancelled, beside as many as wait


class Waiting:
    """A queue of one row for each priority. What is cancelled stays in its row until it is met."""

    def __init__(self) -> None:
        self._rows: dict[int, deque[Task]] = {}
        self._picks = 0
        self._gone = 0  # in the rows, and waiting no more
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, task: Task) -> None:
        """Add a task that has just come."""
        row = self._rows.get(task.priority)
        if row is None:
            row = self._rows[task.priority] = deque()
        row.append(task)
        self._size += 1

    def put_back(self, tasks: list[Task]) -> None:
        """Add tasks that were picked, and come back: they stand before all others of their priority."""
        for task in reversed(tasks):
            self._rows.setdefault(task.priority, deque()).appendleft(task)
        self._size += len(tasks)

    def note_gone(self) -> None:
        """Learn that one of its tasks waits no more."""
        self._size -= 1
        self._gone += 1
        if self._gone > self._size + _MOST_LEFT:
            self._sweep()

    def pick(self) -> Task | None:
        """Take the next task out; None if none waits."""
        if not self._size:
            return None
        self._size -= 1
        if len(self._rows) == 1:
            return self._front(next(iter(self._rows.values()))).popleft()
        return self._pick_of_several()

    def _pick_of_several(self) -> Task:
        rows = self._rows
        for priority, row in list(rows.items()):
            if not self._front(row):
                del rows[priority]
        self._picks += 1
        if self._picks % OLDEST_EACH:
            return rows[max(rows)].popleft()
        return min(rows.values(), key=lambda row: row[0].order).popleft()

    def _front(self, row: deque[Task]) -> deque[Task]:
        """Return ``row`` without those at its front that wait no more."""
        while row and row[0].state is not _WAITING:
            row.popleft()
            self._gone -= 1
        return row

    def _sweep(self) -> None:
        rows = {priority: deque(task for task in row if task.state is _WAITING) for priority, row in self._rows.items()}
        self._rows = {priority: row for priority, row in rows.items() if row}
        self._gone = 0
