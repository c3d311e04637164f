"""Tasks of a full pool: they wait outside, in the order in which they came. Runs in the dispatcher."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from rpccluster.pools.core import Task

__all__ = ["Outside"]


class Outside:
    """The tasks that one pool has no room for. Of those with one key there is at most one."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[int, Task] = OrderedDict()
        self._keys: dict[object, Task] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def __contains__(self, task: Task) -> bool:
        return task.id in self._tasks

    def keyed(self, key: object) -> Task | None:
        """Return the task with ``key``."""
        return self._keys.get(key)

    def put(self, task: Task) -> None:
        """Add a task that has just come."""
        self._tasks[task.id] = task
        if task.key is not None:
            self._keys[task.key] = task

    def take(self) -> Task:
        """Take the first task out."""
        task = next(iter(self._tasks.values()))
        self.remove(task)
        return task

    def remove(self, task: Task) -> None:
        """Forget a task."""
        del self._tasks[task.id]
        if task.key is not None:
            del self._keys[task.key]
