"""A task process at the other end of its socket, with what the journal must know of it. Runs in the dispatcher."""

from __future__ import annotations

from typing import Any

from rpccluster.ipc.messages import TaskProcess
from rpccluster.ipc.scoreboard import CommonCell, Row, TaskCell
from rpccluster.pools.core import Task
from rpccluster.pools.program.link import Link
from rpccluster.services.dispatcher.journal import READING, WRITING, Entry, Journal
from rpccluster.services.dispatcher.keys import Key

__all__ = ["TaskLink"]


class TaskLink(Link):
    """One task process of the pool ``pool``. The journal hears of each task before it is sent."""

    def __init__(self, message: TaskProcess, descriptors: list[int], cells: Row, journal: Journal) -> None:
        """``cells`` is its row of the scoreboard. It owns the ``descriptors`` that came with the message."""
        super().__init__(message.serial, message.pid, descriptors)
        self.pool = message.pool
        self.slot = message.slot
        self.cells = cells
        self.watchers: list[Any] = []  # of its socket: for reading, for writing
        self._row = message.row
        self._journal = journal
        self._under_way = 0

    def _mark(self, under_way: int) -> None:
        if under_way != self._under_way:
            self._under_way = under_way
            self._journal.mark(self._row, self.serial, under_way)

    def run(self, tasks: list[Task]) -> None:
        for task in tasks:
            self._journal.enter(
                Entry(task.number, self.serial, task.attempt, task.id, task.key if isinstance(task.key, Key) else 0)
            )
        self._mark(self._under_way | WRITING)
        super().run(tasks)
        self._note_sent()

    def flush(self) -> None:
        super().flush()
        self._note_sent()

    def _note_sent(self) -> None:
        if not self.has_unsent:
            self._mark(self._under_way & ~WRITING)

    def receive(self, space: bytearray) -> list[Any]:
        self._mark(self._under_way | READING)
        messages = super().receive(space)
        if not self._inbound.has_partial:
            self._mark(self._under_way & ~READING)
        return messages

    @property
    def is_between_messages(self) -> bool:
        """Whether no message is under way, in either direction."""
        return not self._under_way

    @property
    def running(self) -> int:
        """The number of the task that it runs; 0 for none."""
        return self.cells[CommonCell.RUNNING]

    @property
    def begun(self) -> int:
        """The number of the task that it has begun last."""
        return self.cells[TaskCell.BEGUN]

    @property
    def started_at(self) -> float:
        """When the running task has begun, in seconds of the epoch."""
        return self.cells[TaskCell.STARTED_AT] / 1e9

    def close(self) -> None:
        for watcher in self.watchers:
            watcher.stop()
            watcher.close()
        self.watchers.clear()
        super().close()
