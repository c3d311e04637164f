"""A task process as its master sees it: its sockets, its running task, and how it is told to end. Runs in the master.

The master keeps the dispatcher's end of the socket, and both ends of the tickets' pipe, so that nothing is lost when a
dispatcher ends: the next one gets the same.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
from collections.abc import Sequence
from typing import Any

from rpccluster.child.assignment import TaskPart
from rpccluster.config.sections.pool import PoolOptions
from rpccluster.ipc.messages import TaskProcess as TaskProcessMessage
from rpccluster.ipc.messages import TaskProcessGone
from rpccluster.ipc.packets import Passing
from rpccluster.ipc.scoreboard import CommonCell, TaskCell
from rpccluster.master.children.child import Birth, Child, Source
from rpccluster.system import Exit, System, pin
from rpccluster.system.clock import Timer

__all__ = ["CANCELLED", "LOST", "RECYCLED", "TaskProcess", "as_process"]

#: Causes of an end that a dispatcher is told, beside those of `rpccluster.master.kinds.tasks.limits`.
CANCELLED, LOST, RECYCLED = "cancelled", "lost", "recycled"

_PATIENT = ("max_lifetime", "max_memory")


class TaskProcess(Child):
    """One process of a pool, as its master sees it."""

    slack_seconds = 0.0
    stop_option = "stop_timeout"
    ready_option = "the timeout of [cluster]"

    def __init__(self, birth: Birth, pool: str) -> None:
        """``pool`` is the name of its pool. Raises OSError, and leaves nothing open then."""
        super().__init__(birth)
        options: PoolOptions = birth.edition.options
        if options.boot_timeout:
            self.ready_by = birth.booted_at + options.boot_timeout
        self.pool = pool
        self.settings_version = birth.edition.settings.number  # that it was sent, or is born with
        self.is_given = False  # to the dispatcher, that has not been told of its end
        self.condemned = 0  # the task that it is killed for
        self.looked_at = 0.0  # at its memory
        self.was_over = False  # max_memory, at that look
        self._jitter = random.random()
        with contextlib.ExitStack() as undo:
            self.timer = Timer()
            undo.callback(self.timer.close)
            self.socket, self.far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            undo.callback(self.socket.close)
            undo.callback(self.far_end.close)
            self.tickets: tuple[int, ...] = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            undo.pop_all()
        self.socket.setblocking(False)
        self.limit_tasks(options)

    def limit_tasks(self, options: PoolOptions) -> None:
        """Have it end after ``max_tasks``, and its share of the jitter; 0 for never."""
        extra = round(self._jitter * options.max_tasks_jitter)
        self.row[TaskCell.MOST_TASKS] = options.max_tasks + extra if options.max_tasks else 0

    def move(self, slot: int, cpus: list[int] | None) -> None:
        """Give it another slot, and the CPUs of that, if it is pinned."""
        self.slot = slot
        if cpus is not None:
            self.cpus = cpus
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                pin(cpus, self.pid)

    def part(self) -> TaskPart:
        """Return the part of its assignment."""
        return TaskPart(self.pool, self.far_end, self.tickets[0], self.timer)

    # -- what a kind overrides

    def sources(self) -> Sequence[Source]:
        return [self.channel, self.timer]

    def read(self, source: Source) -> list[tuple[Passing, list[int]]]:
        if source is self.timer:  # the turn that follows looks at its cells
            self.timer.drain()
            return []
        return super().read(source)

    def let_go(self) -> None:
        self.far_end.close()

    def close(self) -> None:
        super().close()
        self.let_go()
        self.socket.close()
        for end in self.tickets:
            os.close(end)
        self.tickets = ()

    @property
    def silent_since(self) -> float:
        """It has no heartbeat: `rpccluster.master.kinds.tasks.limits` bounds its tasks."""
        return float("inf")

    def question(self) -> int | None:
        return None

    def stop(self, system: System) -> None:
        """Let it end after the task that it runs, and wake it if it runs none."""
        self.row[TaskCell.LEAVES] = 1
        with contextlib.suppress(OSError):  # it has ended
            self.socket.shutdown(socket.SHUT_WR)

    def note_retirement(self, reason: str, now: float, kill_at: float) -> None:
        """Note that it was told to retire. The task that it runs may go on if it is only its process's time to go."""
        super().note_retirement(reason, now, float("inf") if reason in _PATIENT else kill_at)

    @property
    def is_at_work(self) -> bool:
        return self.number != 0

    # -- its task

    @property
    def number(self) -> int:
        """The number of the task that it runs, or has left behind; 0 for none."""
        return self.row[CommonCell.RUNNING]

    def condemn(self, number: int, cause: str) -> bool:
        """Have it killed for ``cause``, unless its task ``number`` has just ended. Returns whether it is."""
        self.row[TaskCell.CONDEMNED] = number  # before it is compared: the process does both the other way round
        if self.number != number or self.is_killed:
            return False
        self.condemned, self.past_limit = number, cause
        return True

    # -- what a dispatcher is told

    def introduction(self) -> tuple[TaskProcessMessage, list[int]]:
        """Return the message that gives it to a dispatcher, with its descriptors."""
        message = TaskProcessMessage(self.serial, self.pool, self.slot, self.pid, self.row_number)
        return message, [self.socket.fileno(), *self.tickets]

    def obituary(self) -> TaskProcessGone:
        """Return the message that it has ended, or is killed for its task, before its row is cleared."""
        number, exit_ = self.number, self.exit or Exit(self.pid, None, signal.SIGKILL)
        return TaskProcessGone(
            self.serial,
            self.pool,
            self.slot,
            self.pid,
            number,
            self._cause(number),
            exit_.signal or 0,
            exit_.code or 0,
            self.row[TaskCell.STARTED_AT] / 1e9 if number else 0.0,
            self.row[TaskCell.BEGUN],
        )

    def _cause(self, number: int) -> str:
        if number and number == self.condemned:
            return self.past_limit
        return RECYCLED if self.is_expected_to_end and not number else LOST


def as_process(child: Any) -> TaskProcess:
    """Return ``child``, which is of this kind."""
    assert isinstance(child, TaskProcess)
    return child
