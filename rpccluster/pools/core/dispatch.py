"""The core of one pool. Its edge tells it what has happened, and performs the actions that it returns.

Each task ends exactly once, by an `Ended`. A task that a process has begun is never sent again in the same attempt; one
that it has not begun is sent elsewhere, and no attempt is counted. Two things say what has begun: a ticket that was
taken back has not, and of an ended process its cells name the one task that had. It reads no clock and does no I/O;
runs where a pool is dispatched: in a program, or in the dispatcher.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from rpccluster.pools.core import kinds
from rpccluster.pools.core.actions import Action, Ended, Kill, Run, TakeBack
from rpccluster.pools.core.process import Process
from rpccluster.pools.core.task import Event, State, Task
from rpccluster.pools.core.waiting import Waiting

__all__ = ["Core", "Result"]

_WAITING, _SENT, _ENDED = State.WAITING, State.SENT, State.ENDED


class Result(NamedTuple):
    """What a process told of the end of one task; ``kind`` is one of `kinds`, ``seconds`` is how long it ran."""

    task_id: int
    attempt: int
    kind: str
    seconds: float
    detail: Any


class Core:
    """Dispatches the tasks of one pool. Times are seconds of one clock that never goes back.

    ``first_number`` is above all that an earlier dispatcher has sent to the same processes.
    """

    def __init__(self, queue_size: int = 1000, first_number: int = 1) -> None:
        self.queue_size = queue_size
        self.tasks: dict[int, Task] = {}  # that have not ended
        self.processes: list[Process] = []
        self._keys: dict[object, Task] = {}
        self._waiting = Waiting()
        self._idle: list[Process] = []  # the last that became idle is the next to work
        self._pauses: list[tuple[float, int, Task]] = []
        self._orders = itertools.count(1)
        self._numbers = itertools.count(first_number)

    @property
    def waiting(self) -> int:
        """The number of tasks that wait: for a process, behind another task, or to be repeated."""
        return len(self.tasks) - len(self.processes) + len(self._idle)

    @property
    def is_full(self) -> bool:
        """Whether as many tasks wait as may."""
        return len(self.tasks) - len(self.processes) + len(self._idle) >= self.queue_size

    def keyed(self, key: object) -> Task | None:
        """Return the task with ``key`` that is wanted and has not ended, which stands for any other with it."""
        return self._keys.get(key)

    @property
    def wake_at(self) -> float | None:
        """When `tick` must be called at the latest; None if nothing waits for a time."""
        at = self._pauses[0][0] if self._pauses else None
        for process in self.processes:
            if len(process.tasks) > 1:
                stalls_at = process.stalls_at
                if stalls_at is not None and (at is None or stalls_at < at):
                    at = stalls_at
        return at

    def submit(self, task: Task, now: float) -> list[Action]:
        """Take in a new task. It is taken in even where the pool is full; `keyed` tells of another with its key."""
        self._enter(task)
        if self._idle and not self._waiting:
            return [self._begin(task, now)]
        self._waiting.put(task)
        return self._give_to_idle(now) if self._idle else []

    def _enter(self, task: Task) -> None:
        task.order = next(self._orders)
        self.tasks[task.id] = task
        if task.key is not None:
            self._keys.setdefault(task.key, task)

    def _release_key(self, task: Task) -> None:
        if task.key is not None and self._keys.get(task.key) is task:
            del self._keys[task.key]

    def cancel(self, task: Task, now: float) -> list[Action]:
        """End a task that has not begun; one that has begun is ended by its process's death."""
        if task.state is _ENDED or task.is_cancelled:
            return []
        task.is_cancelled = True
        self._release_key(task)  # another one may begin
        if task.state is not _SENT:
            return [self._end(task, kinds.CANCELLED, None)]
        if task is task.process.tasks[0]:
            return [Kill(task.process, task.number)]
        return [TakeBack(task.process)]

    def process_joined(self, process: Process, now: float, has: Task | None = None) -> list[Action]:
        """Take in a process that is ready; it ``has`` begun a task, with this number, for an earlier dispatcher."""
        self.processes.append(process)
        if has is None:
            self._idle.append(process)
            return self._give_to_idle(now)
        self._enter(has)
        self._send(process, has)
        process.since = now
        return []

    def close(self, process: Process) -> None:
        """Send no more to a process that is about to end."""
        if not process.is_closed:
            process.is_closed = True
            if not process.tasks and process in self._idle:
                self._idle.remove(process)
                self.processes.remove(process)

    def done(self, process: Process, results: Iterable[Result], now: float) -> list[Action]:
        """Take in what a process told since the last time; what does not fit what it was sent is ignored."""
        actions: list[Action] = []
        tasks = process.tasks
        count, seconds = 0, 0.0
        for result in results:
            if not tasks or tasks[0].id != result[0] or tasks[0].attempt != result[1]:
                continue
            task = tasks.popleft()
            process.bytes -= task.size
            count += 1
            seconds += result[3]
            action = self._ended(task, result[2], result[4], now)
            if action is not None:
                actions.append(action)
        if count:
            process.since = now
            process.note_pace(seconds, count)
            self._feed(process, actions, now)
        return actions

    def process_gone(self, process: Process, begun: int, kind: str, detail: Any, now: float) -> list[Action]:
        """Take in the end of a process, after its last results.

        ``begun`` is the number in its cells, and ``kind`` how that task has ended. The others had not begun.
        """
        actions: list[Action] = []
        if process in self.processes:
            self.processes.remove(process)
        if process in self._idle:
            self._idle.remove(process)
        process.is_closed = True
        if process.tasks and process.tasks[0].number == begun:
            action = self._ended(process.tasks.popleft(), kind, detail, now)
            if action is not None:
                actions.append(action)
        self._give_back(list(process.tasks), actions)
        process.tasks.clear()
        process.bytes = 0
        actions += self._give_to_idle(now)
        return actions

    def taken_back(self, process: Process, tickets: Collection[int], now: float) -> list[Action]:
        """Take in which tickets were read back: their tasks have not begun, and never will in this process."""
        actions: list[Action] = []
        back = [task for task in process.tasks if task.ticket and task.ticket in tickets]
        for task in back:
            process.tasks.remove(task)
            process.bytes -= task.size
        self._give_back(back, actions)
        actions += [Kill(process, task.number) for task in process.tasks if task.is_cancelled]
        if back and not process.tasks:
            self._rest(process)
        actions += self._give_to_idle(now)
        return actions

    def drop(self, task: Task) -> None:
        """Forget a task that was sent to a process which has ended before it began it."""
        task.process.tasks.remove(task)
        task.step(Event.END)
        del self.tasks[task.id]
        self._release_key(task)

    def tick(self, now: float) -> list[Action]:
        """Repeat what has paused, and take back what stands behind a task that takes long."""
        actions: list[Action] = []
        while self._pauses and self._pauses[0][0] <= now:
            task = heapq.heappop(self._pauses)[2]
            if task.state is State.PAUSED:
                task.step(Event.RESUME)
                self._waiting.put(task)
        self._forget_ended_pauses()
        for process in self.processes:
            stalls_at = process.stalls_at
            if stalls_at is not None and stalls_at <= now:
                process.note_stall(now)
                actions.append(TakeBack(process))
        actions += self._give_to_idle(now)
        return actions

    def _forget_ended_pauses(self) -> None:
        """Wake for no task that has ended while it paused."""
        while self._pauses and self._pauses[0][2].state is not State.PAUSED:
            heapq.heappop(self._pauses)

    def give_up(self, kind: str, detail: Any) -> list[Action]:
        """End all tasks as ``kind``: no process will run them, or tell of them, any more."""
        for process in self.processes:
            process.tasks.clear()
            process.bytes = 0
            process.is_closed = True
        self.processes, self._idle = [], []
        return [
            self._end(task, kinds.CANCELLED if task.is_cancelled else kind, detail)
            for task in list(self.tasks.values())
        ]

    def _give_to_idle(self, now: float) -> list[Action]:
        actions: list[Action] = []
        while self._idle:
            task = self._waiting.pick()
            if task is None:
                break
            actions.append(self._begin(task, now))
        return actions

    def _begin(self, task: Task, now: float) -> Action:
        process = self._idle.pop()
        process.since = now
        self._send(process, task)
        return Run(process, [task])

    def _feed(self, process: Process, actions: list[Action], now: float) -> None:
        """Send to a process that has ended something; one that has much before it gets more only later."""
        tasks = process.tasks
        if process.is_closed:
            if not tasks:
                self._rest(process)
            return
        waiting = len(self._waiting)
        if waiting and len(tasks) <= process.depth // 2:
            share = -(-waiting // len(self.processes))  # the others work, too
            batch: list[Task] = []
            while len(batch) < share and len(tasks) < process.depth:
                task = self._waiting.pick()
                if task is None:
                    break
                if not process.takes(task):
                    self._waiting.put_back([task])
                    break
                self._send(process, task)
                batch.append(task)
            if batch:
                actions.append(Run(process, batch))
        if not tasks:
            self._rest(process)

    def _rest(self, process: Process) -> None:
        """Have a process wait that has nothing to do, or forget it."""
        if process.is_closed:
            self.processes.remove(process)
        else:
            self._idle.append(process)

    def _send(self, process: Process, task: Task) -> None:
        task.number = task.number or next(self._numbers)
        task.ticket = task.number if process.tasks else 0
        task.process = process
        task.step(Event.SEND)
        process.tasks.append(task)
        process.bytes += task.size

    def _give_back(self, tasks: list[Task], actions: list[Action]) -> None:
        """Have tasks wait again that had not begun, or end those that were cancelled."""
        wanted = []
        for task in tasks:
            task.process, task.number = None, 0
            if task.is_cancelled:
                actions.append(self._end(task, kinds.CANCELLED, None))
            else:
                task.step(Event.GIVE_BACK)
                wanted.append(task)
        self._waiting.put_back(wanted)

    def _ended(self, task: Task, kind: str, detail: Any, now: float) -> Action | None:
        """Decide what the end of an attempt means; None if the task is repeated later."""
        task.process, task.number = None, 0
        if task.is_cancelled:
            return self._end(task, kinds.CANCELLED, detail)
        if kind in kinds.REPEATED and task.attempt <= task.retries:
            task.step(Event.PAUSE)
            heapq.heappush(self._pauses, (now + kinds.pause_seconds(task.attempt), task.id, task))
            task.attempt += 1
            return None
        return self._end(task, kind, detail)

    def _end(self, task: Task, kind: str, detail: Any) -> Action:
        was_waiting, was_paused = task.state is _WAITING, task.state is State.PAUSED
        task.step(Event.END)
        if was_waiting:
            self._waiting.note_gone()
        if was_paused:
            self._forget_ended_pauses()
        del self.tasks[task.id]
        self._release_key(task)
        return Ended(task, kind, detail)
