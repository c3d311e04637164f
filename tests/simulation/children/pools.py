"""Made-up processes of pools: the dispatcher, which is told of the others, and the processes that run tasks.

A task process boots, begins tasks and ends them by its cells, overruns a deadline, dies in the middle, or ends by
itself. The dispatcher keeps a list of the processes that it was told of, and asks for the end of one now and then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from random import Random
from typing import TYPE_CHECKING, Any

from rpccluster.ipc.messages import (
    BootFailed,
    Findings,
    Inquire,
    KillTask,
    Message,
    Ready,
    TaskProcess,
    TaskProcessGone,
    WantsToRetire,
)
from rpccluster.ipc.scoreboard import CommonCell, TaskCell

from ..world.process import NEVER, Fault, Process
from ..world.world import World
from .serving.worker import Worker
from .wire import copy_of

if TYPE_CHECKING:
    from ..masters.master import Master

__all__ = ["Dispatcher", "TaskChild"]

KILL_CHANCE = 0.05  # with each thing that a dispatcher is told


class Dispatcher(Worker):
    """The dispatcher: a process on the engine of the workers, which has a list of task processes."""

    noun = "dispatcher"
    group_name = "pools"

    def __init__(self, world: World, pid: int, master: Master, assignment: Any) -> None:
        super().__init__(world, pid, master, assignment)
        self.is_bad = False  # that is about the service of users
        self.known: dict[int, int] = {}  # processes that it may use: serial → pid
        self.gone: set[int] = set()  # whose end it was told

    def _accept(self) -> None:
        """Nobody calls it here: a start only looks whether somebody listens."""
        for listener in self.listeners:
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()

    def _act_on(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, TaskProcess):  # it may die at the next step
            for descriptor in descriptors:
                os.close(descriptor)
        super()._act_on(message, [] if isinstance(message, TaskProcess) else descriptors)
        if isinstance(message, TaskProcess):
            if message.serial in self.known:
                raise Fault(f"{self.name} is told of process {message.pid} twice")
            if len(descriptors) < 3 and self.world.now >= self.world.scarcity.table_is_full_until:
                raise Fault(f"{self.name} gets {len(descriptors)} descriptors of process {message.pid}")
            if message.serial in self.gone:
                raise Fault(f"{self.name} is told of process {message.pid}, of whose end it was told before")
            self.known[message.serial] = message.pid
            self._ask_for_an_end(message.serial)
        elif isinstance(message, TaskProcessGone):
            self.gone.add(message.serial)
            if self.known.pop(message.serial, None) is None and self.known:  # one that starts hears of earlier ends
                raise Fault(f"{self.name} is told of the end of process {message.pid}, of which it knows nothing")
            for serial in list(self.known)[:1]:
                self._ask_for_an_end(serial)
        elif isinstance(message, Inquire):
            self.say(self.channel, Findings(message.number, []))

    def _ask_for_an_end(self, serial: int) -> None:
        if not self.world.is_calm and self.random.random() < KILL_CHANCE:
            task = self.world.tasks.get(serial)
            self.say(self.channel, KillTask(serial, self.random.choice((0, task.number if task is not None else 7))))


class TaskChild(Process):
    """One process of a pool. Moments are infinite if they never come."""

    noun = "task"

    def __init__(self, world: World, pid: int, master: Master, assignment: Any) -> None:
        super().__init__(world, pid, master)
        self.pool, self.row, self.serial = assignment.part.name, assignment.row, assignment.serial
        self.timer = assignment.part.timer  # the master's object; it is watched as long as this lives
        self.channel = copy_of(assignment.channel)
        self.socket = socket.socket(fileno=os.dup(assignment.part.socket.fileno()))
        for source in (self.channel, self.socket):
            world.watch(source.fileno(), self)
        world.number_births += 1
        self.random = world.plan.chance(f"task {world.number_births}")
        self.boots_at = world.now + world.plan.boot_seconds(self.random, 0.01, 1.0)
        self.next_at = self.ends_at = self.wakes_at = NEVER  # the next task, the end of this one, its deadline
        self.is_ready = self.has_eof = self.cannot_boot = self.dies = False
        if world.number_births not in world.plan.spared and not world.is_calm:
            self._draw_fate(world.plan.chance(f"fate {world.number_births}"))
        world.tasks[self.serial] = self
        world.tell(self.name, f"is born for pool {self.pool}, slot {assignment.slot}")

    def _draw_fate(self, chance: Random) -> None:
        fate = chance.random()
        self.cannot_boot = fate < 0.1
        self.dies = 0.1 <= fate < 0.25

    @property
    def number(self) -> int:
        """The number of the task that it runs; 0 for none."""
        found: int = self.row[CommonCell.RUNNING]
        return found

    @property
    def wake_at(self) -> float:
        return min(self.next_at, self.ends_at, self.wakes_at) if self.is_ready else self.boots_at

    def step(self) -> None:
        come, now = self.world.come, self.world.now
        if self.channel.fileno() in come:
            for message, _ in self.channel.receive():
                self.world.count("message", type(message).__name__)
            if self.channel.is_closed:
                self.end(code=1)
                return
        if self.socket.fileno() in come:
            self.has_eof = True
            self.world.unwatch(self.socket.fileno())
        if not self.is_ready:
            if now >= self.boots_at:
                self._boot()
            return
        if now >= self.wakes_at:
            self.wakes_at = NEVER
            self.timer.set(1)  # its moment has passed
        if now >= self.ends_at:
            self._end_task()
        elif now >= self.next_at and not self._leaves:
            self._begin_task()
        if self.is_alive and not self.number and self._leaves:
            self.end(code=0)

    @property
    def _leaves(self) -> bool:
        return self.has_eof or bool(self.row[TaskCell.LEAVES])

    def _boot(self) -> None:
        if self.cannot_boot:
            self.channel.send(BootFailed("service", "a target cannot be imported"))
            self.end(code=3)
            return
        self.is_ready = True
        self.channel.send(Ready([]))
        self._plan_next()

    def _plan_next(self) -> None:
        self.next_at = self.world.now + 20.0 * self.random.random() if not self.world.is_calm else NEVER

    def _begin_task(self) -> None:
        """Begin a task, which may take longer than it may."""
        now, self.next_at = self.world.now, NEVER
        seconds, limit = 4.0 * self.random.random(), self.random.choice((0.0, 0.0, 2.0))
        if limit:
            self.row[TaskCell.DEADLINE], self.wakes_at = round((now + limit) * 1e9), now + limit
        self.row[TaskCell.STARTED_AT] = round(now * 1e9)
        number = next(self.world.task_numbers)
        self.row[TaskCell.BEGUN] = self.row[CommonCell.RUNNING] = number
        self.ends_at = now + seconds
        self.world.count("task", "begun")

    def _end_task(self) -> None:
        number, self.ends_at, self.wakes_at = self.number, NEVER, NEVER
        if self.dies:
            self.end(signum=signal.SIGSEGV)
            return
        self.row[TaskCell.DEADLINE] = self.row[CommonCell.RUNNING] = 0
        self.row[TaskCell.TASKS] += 1
        self.world.count("task", "ended")
        if self.row[TaskCell.CONDEMNED] == number:
            return  # it is about to be killed
        if self.random.random() < 0.2:
            self.channel.send(WantsToRetire("max_tasks"))
            self.row[TaskCell.LEAVES] = 1
        self._plan_next()

    def take_signal(self, signum: int) -> None:
        if signum == signal.SIGTERM and not self.is_ready:
            self.world.after(0.0, self.end, signum=signum)

    def release(self) -> None:
        for source in (self.channel, self.socket):
            self.world.unwatch(source.fileno())
            source.close()
