"""A made-up edge of the core: task processes that run nothing, and a clock that stands still."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

from rpccluster.pools.core import Action, Core, Ended, Kill, Process, Result, Run, TakeBack, Task

FAST = 0.00001  # seconds that a task takes, for which many are sent ahead


class MadeUpProcess:
    """What a task process does with its socket, its tickets and its cells."""

    def __init__(self) -> None:
        self.process = Process(self)
        self.inbox: deque[tuple[Task, int, int, int]] = deque()  # with ticket, number and attempt
        self.tickets: deque[int] = deque()
        self.running: tuple[Task, int, int, int] | None = None
        self.cell = 0
        self.results: list[Result] = []
        self.killed: list[int] = []  # the numbers that it is killed for
        self.began: list[tuple[int, int]] = []

    def begin(self) -> bool:
        """Begin the next task that was not taken back; False if there is none."""
        while self.running is None and self.inbox:
            entry = self.inbox.popleft()
            if self._has_ticket(entry[1]):
                self.running = entry
                self.cell = entry[2]
                self.began.append((entry[0].id, entry[3]))
        return self.running is not None

    def _has_ticket(self, ticket: int) -> bool:
        while ticket and self.tickets and self.tickets[0] < ticket:
            self.tickets.popleft()
        if not ticket or (self.tickets and self.tickets[0] == ticket):
            if ticket:
                self.tickets.popleft()
            return True
        return False

    def end(self, kind: str = "ok", seconds: float = FAST, *, is_killed_before_it_clears: bool = False) -> None:
        """End the task that runs, and tell of it."""
        assert self.running is not None
        task, _, _, attempt = self.running
        self.results.append(Result(task.id, attempt, kind, seconds, "detail"))
        self.running = None
        if not is_killed_before_it_clears:
            self.cell = 0


class Edge:
    """Performs the core's actions upon made-up processes."""

    def __init__(self, queue_size: int = 1000) -> None:
        self.core = Core(queue_size)
        self.now = 0.0
        self.processes: list[MadeUpProcess] = []
        self.ended: list[Ended] = []
        self._ids = itertools.count(1)

    def join(self) -> MadeUpProcess:
        """Have one more process."""
        made_up = MadeUpProcess()
        self.processes.append(made_up)
        self.perform(self.core.process_joined(made_up.process, self.now))
        return made_up

    def submit(self, **options: Any) -> Task:
        """Submit a task, or find the one with its key."""
        task = self.core.keyed(options.get("key"))
        if task is None:
            task = Task(next(self._ids), **options)
            self.perform(self.core.submit(task, self.now))
        return task

    def cancel(self, task: Task) -> None:
        """Cancel a task."""
        self.perform(self.core.cancel(task, self.now))

    def read(self, made_up: MadeUpProcess) -> None:
        """Tell the core what a process has told."""
        results, made_up.results = made_up.results, []
        if results:
            self.perform(self.core.done(made_up.process, results, self.now))

    def run_one(self, made_up: MadeUpProcess, kind: str = "ok", seconds: float = FAST) -> None:
        """Have a process run its next task, and tell the core."""
        assert made_up.begin()
        made_up.end(kind, seconds)
        self.read(made_up)

    def bury(self, made_up: MadeUpProcess, kind: str = "process_lost") -> None:
        """Have a process end now."""
        self.processes.remove(made_up)
        self.read(made_up)
        self.perform(self.core.process_gone(made_up.process, made_up.cell, kind, "gone", self.now))

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.perform(self.core.tick(self.now))

    def perform(self, actions: list[Action]) -> None:
        """Carry out the core's decisions."""
        for action in actions:
            if isinstance(action, Ended):
                self.ended.append(action)
                continue
            made_up: MadeUpProcess = action.process.handle
            if isinstance(action, Run):
                for task in action.tasks:
                    if task.ticket:
                        made_up.tickets.append(task.ticket)
                    made_up.inbox.append((task, task.ticket, task.number, task.attempt))
            elif isinstance(action, TakeBack):
                tickets = set(made_up.tickets)
                made_up.tickets.clear()
                self.perform(self.core.taken_back(action.process, tickets, self.now))
            elif isinstance(action, Kill):
                made_up.killed.append(action.number)
