"""All pools of the cluster: their tasks, their processes, and who waits for which outcome. Runs in the dispatcher.

The cores decide (`rpccluster.pools.core`); here their actions are performed on sockets, and their ends become events
for the submitters. A task's id is its submitter's, so that it is the same for each dispatcher. What a task was called
with is opaque here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rpccluster.ipc.messages import TaskProcessGone
from rpccluster.log import escaped, logger
from rpccluster.pools.core import Action, Core, Ended, Kill, Result, Run, TakeBack, Task, kinds
from rpccluster.pools.core.task import State
from rpccluster.pools.program.link import RECEIVE_BYTES
from rpccluster.pools.submission import Work
from rpccluster.services.dispatcher.journal import Journal
from rpccluster.services.dispatcher.keys import Key, key_of
from rpccluster.services.dispatcher.link import TaskLink
from rpccluster.services.dispatcher.outside import Outside
from rpccluster.services.dispatcher.submitters import ACCEPTED, PROGRESS, Submitter, Submitters
from rpccluster.tasks.wire import Done, Progress

__all__ = ["FULL", "LATE", "NO_POOL", "TAKEN", "WAITS", "Claim", "Dispatch", "Pool", "Unclaimed", "task_of"]

#: What becomes of a task that is submitted.
TAKEN, WAITS, FULL, NO_POOL, LATE = "taken", "waits", "full", "no pool", "late"

_SMALL_BYTES = 512  # of a task beside its arguments


class Claim(NamedTuple):
    """One who waits for the outcome of a task, under an id of its own."""

    submitter: Submitter
    task_id: int


class Unclaimed(NamedTuple):
    """The end of a task that has run for an earlier dispatcher, and that no submitter has claimed yet."""

    kind: str
    attempt: int
    detail: Any


class Pool:
    """One pool. ``timeout`` and ``soft_timeout`` are for tasks that say nothing of them."""

    def __init__(self, name: str, first_number: int) -> None:
        self.name = name
        self.core = Core(first_number=first_number)
        self.timeout = 0.0
        self.soft_timeout = 0.0
        self.outside = Outside()

    def keyed(self, key: object) -> Task | None:
        """Return the task with ``key`` that waits, here or outside, or runs."""
        return self.core.keyed(key) or self.outside.keyed(key)


class Dispatch:
    """The tasks of all pools. Its ``claims`` tell in which pool a task is, by each id that it has for somebody."""

    def __init__(self, loop: Any, journal: Journal, submitters: Submitters, kill: Callable[[int, int], object]) -> None:
        """``kill`` has a process killed, by its serial, if it still runs the task with a number; 0: in any case."""
        self._loop = loop
        self._journal = journal
        self._submitters = submitters
        self._kill = kill
        self._space = bytearray(RECEIVE_BYTES)
        self._timer: Any = loop.timer(0.0)
        self._wakes_at = float("inf")
        self._first_number = time.monotonic_ns() // 1000  # above all that an earlier dispatcher has used
        self.pools: dict[str, Pool] = {}
        self.links: dict[int, TaskLink] = {}
        self.tasks: dict[int, tuple[Pool, Task]] = {}  # by the ids that submitters know
        self.keeps_unclaimed = False  # submitters may still send again what they wait for
        self.unclaimed: dict[int, Unclaimed] = {}
        self.attempts = dict(journal.attempts())  # of tasks that nobody has submitted again yet, by their ids

    # -- pools

    def set_pools(self, pools: dict[str, dict[str, Any]]) -> None:
        """Have the pools of the configuration; the tasks of one that is gone are ended."""
        for name, options in pools.items():
            pool = self.pool_of(name)
            pool.core.queue_size = int(options.get("queue_size", pool.core.queue_size))
            pool.timeout = float(options.get("timeout", 0.0))
            pool.soft_timeout = float(options.get("soft_timeout", 0.0))
        for name in self.pools.keys() - pools.keys():
            pool, reason = self.pools.pop(name), f"there is no pool {name} any more"
            outside, pool.outside = pool.outside, Outside()
            self._perform(pool, pool.core.give_up(kinds.REJECTED, reason))
            for task in outside:
                self._tell_end(pool, Ended(task, kinds.REJECTED, reason))

    def pool_of(self, name: str) -> Pool:
        """Return the pool of that name; it is made if its options have not come yet."""
        return self.pools.setdefault(name, Pool(name, self._first_number))

    # -- tasks

    def submit(self, pool: Pool, task: Task, claim: Claim, *, waits: bool) -> str:
        """Take in a task. Returns what becomes of it: `TAKEN`, `WAITS` or `FULL`."""
        task.attempt = self.attempts.pop(task.id, task.attempt)
        twin = pool.keyed(task.key) if task.key is not None else None
        if twin is not None:
            if twin.process is None:
                twin.attempt = max(twin.attempt, task.attempt)
            self._learn(twin, task)
            self._claim(pool, twin, claim)
            return WAITS if waits and twin in pool.outside else TAKEN
        if pool.core.is_full:
            if not waits:
                return FULL
            self._claim(pool, task, claim)
            pool.outside.put(task)
            return WAITS
        self._claim(pool, task, claim)
        self.begin(pool, task)
        return TAKEN

    def begin(self, pool: Pool, task: Task) -> None:
        """Give a task to the core, also where the pool is full."""
        self._perform(pool, pool.core.submit(task, time.monotonic()))

    def _claim(self, pool: Pool, task: Task, claim: Claim) -> None:
        task.owner = [*(task.owner or ()), claim]
        claim.submitter.ids.add(claim.task_id)
        self.tasks[claim.task_id] = (pool, task)

    @staticmethod
    def _learn(task: Task, again: Task) -> None:
        """Learn what a task is that has run since before this dispatcher, from one who submits it ``again``."""
        if task.work is None:
            task.work, task.priority, task.retries = again.work, again.priority, again.retries
            if isinstance(task.key, Key) and isinstance(again.key, Key):
                task.key.text = again.key.text

    def claim(self, claim: Claim, again: Task) -> None:
        """Note who waits for a task that is here, since it was submitted ``again``."""
        pool, task = self.tasks[claim.task_id]
        self._learn(task, again)
        if all(each.task_id != claim.task_id for each in task.owner or ()):
            self._claim(pool, task, claim)

    def cancel(self, task_id: int) -> bool:
        """End a task for the one who knows it by this id. Returns False if there is none."""
        found = self.tasks.get(task_id)
        if found is None:
            return False
        pool, task = found
        if len(task.owner or ()) > 1:  # others want it
            self._disclaim(task, task_id, tells=True)
        elif task in pool.outside:
            pool.outside.remove(task)
            self._tell_end(pool, Ended(task, kinds.CANCELLED, None))
        else:
            self._perform(pool, pool.core.cancel(task, time.monotonic()))
        return True

    def _disclaim(self, task: Task, task_id: int, *, tells: bool) -> None:
        for claim in [claim for claim in task.owner if claim.task_id == task_id]:
            task.owner.remove(claim)
            self._let_go(claim)
            if tells:
                self._submitters.tell(claim.submitter, task_id, kinds.CANCELLED, *_details(task.attempt, None, None))

    def _let_go(self, claim: Claim) -> None:
        claim.submitter.ids.discard(claim.task_id)
        self.tasks.pop(claim.task_id, None)

    def forget(self, submitter: Submitter) -> None:
        """End the tasks of a submitter that has gone, unless others wait for them, too."""
        ended = 0
        for task_id in list(submitter.ids):
            _, task = self.tasks[task_id]
            is_last = len(task.owner) == 1
            ended += is_last
            self.cancel(task_id)
            if is_last and task_id in self.tasks:  # it runs until its process is killed
                task.owner.clear()
        for task_id in submitter.ended:
            self._journal.clear(task_id)
        if ended:
            logger.warning("The process %d has gone: its %d tasks are ended", submitter.pid, ended)

    # -- processes

    def join(self, link: TaskLink, has: Task | None = None) -> None:
        """Take in a process that is ready; it ``has`` begun a task for an earlier dispatcher."""
        self.links[link.serial] = link
        self._watch(link)
        pool = self.pool_of(link.pool)
        if has is not None:
            self.tasks[has.id] = (pool, has)
        self._perform(pool, pool.core.process_joined(link.process, time.monotonic(), has))

    def _watch(self, link: TaskLink) -> None:
        reading, writing = self._loop.io(link.fileno(), 1), self._loop.io(link.fileno(), 2)
        reading.start(self._read, link)
        link.watchers = [reading, writing]

    def _read(self, link: TaskLink) -> None:
        pool = self.pools.get(link.pool)
        results = []
        for message in link.receive(self._space):
            if isinstance(message, Done):
                seconds = message.ended_at - message.started_at
                result = Result(message.task_id, message.attempt, message.outcome, seconds, (link.pid, message))
                results.append(result)
            elif isinstance(message, Progress):
                self._note_progress(link, message)
        if pool is not None and results:
            self._perform(pool, pool.core.done(link.process, results, time.monotonic()))
        if link.is_ended and link.watchers:
            link.watchers[0].stop()
            if pool is not None:
                pool.core.close(link.process)  # its end is told by the master

    def _note_progress(self, link: TaskLink, message: Progress) -> None:
        task = next((task for task in link.process.tasks if task.id == message.task_id), None)
        for claim in task.owner or () if task else ():
            self._submitters.tell(claim.submitter, claim.task_id, PROGRESS, message.done, message.total, message.note)

    def bury(self, message: TaskProcessGone) -> None:
        """Take in the end of a process, after its last results."""
        link = self.links.pop(message.serial, None)
        if link is None:
            return
        self._read(link)
        pool = self.pools.get(link.pool)
        if pool is not None:
            for task in link.process.tasks:
                if task.number != message.number:
                    self._journal.take_back(task.id, task.attempt)
            self._drop_unknown(pool, link, message.number)
            kind = kinds.of_cause(message.cause)
            gone = pool.core.process_gone(link.process, message.number, kind, (link.pid, message), time.monotonic())
            self._perform(pool, gone)
        link.close()

    def _drop_unknown(self, pool: Pool, link: TaskLink, begun: int) -> None:
        """Forget what an ended process had not begun, if nobody has said yet what that is: it is submitted again."""
        for task in list(link.process.tasks):
            if task.work is None and task.number != begun:
                pool.core.drop(task)
                self.tasks.pop(task.id, None)
                self.leave_open(task.id, task.attempt)

    def leave_open(self, task_id: int, attempt: int) -> None:
        """Remember the next attempt of a task until it is submitted again, if that may still be."""
        if self.keeps_unclaimed:
            self.attempts[task_id] = attempt
        else:
            self._journal.clear(task_id)

    def leave_unclaimed(self, task_id: int, ended: Unclaimed) -> None:
        """Remember the end of a task until it is submitted again, if that may still be."""
        if self.keeps_unclaimed:
            self.unclaimed[task_id] = ended
        else:
            self._journal.clear(task_id)

    def end_unclaimed(self) -> int:
        """Forget what ran for an earlier dispatcher and was not claimed in time. Returns how many of it run."""
        self.keeps_unclaimed = False
        for task_id in (*self.unclaimed, *self.attempts):
            self._journal.clear(task_id)
        self.unclaimed.clear()
        self.attempts.clear()
        unclaimed = [each for each in self.tasks.values() if not each[1].owner]
        for pool, task in unclaimed:
            self._perform(pool, pool.core.cancel(task, time.monotonic()))
        return len(unclaimed)

    def end(self, pool: Pool, ended: Ended, claim: Claim) -> None:
        """Tell ``claim`` how a task has ended that was never here."""
        ended.task.owner = [claim]
        self._tell_end(pool, ended)

    # -- the end

    def drain(self) -> None:
        """Send nothing more, since a successor will. What has not begun is left to it; what runs may end."""
        self._timer.stop()
        for link in self.links.values():
            pool = self.pool_of(link.pool)
            pool.core.close(link.process)
            self._perform(pool, [TakeBack(link.process)])

    @property
    def is_drained(self) -> bool:
        """Whether no task runs, and no message to or from a process is under way."""
        return all(link.is_between_messages and not link.process.tasks for link in self.links.values())

    def complete(self) -> bool:
        """Go on with the messages that are under way. Returns whether all are complete."""
        under_way = [link for link in self.links.values() if not link.is_between_messages]
        for link in under_way:
            link.flush()
            self._read(link)
        return not under_way

    # -- what the cores decide

    def _perform(self, pool: Pool, actions: Iterable[Action]) -> None:
        waiting = deque(actions)
        while waiting or self._let_in(pool, waiting):
            action = waiting.popleft()
            if isinstance(action, Run):
                link: TaskLink = action.process.handle
                link.run(action.tasks)
                if link.has_unsent and link.watchers:
                    link.watchers[1].start(self._write, link)
            elif isinstance(action, TakeBack):
                tickets = self._take_back(action.process.handle)
                waiting += pool.core.taken_back(action.process, tickets, time.monotonic())
            elif isinstance(action, Kill):
                self._kill(action.process.handle.serial, action.number)
            else:
                self._tell_end(pool, action)
        self._set_timer(pool)

    def _write(self, link: TaskLink) -> None:
        link.flush()
        if not link.has_unsent:
            link.watchers[1].stop()

    def _take_back(self, link: TaskLink) -> list[int]:
        tickets = link.take_back()
        for task in link.process.tasks:
            if task.ticket and task.ticket in tickets:
                self._journal.take_back(task.id, task.attempt)
        return tickets

    def _tell_end(self, pool: Pool, ended: Ended) -> None:
        task = ended.task
        claims: list[Claim] = task.owner or []
        for claim in claims:
            self._let_go(claim)
            claim.submitter.ended.add(claim.task_id)
            pid, told = ended.detail if isinstance(ended.detail, tuple) else (None, ended.detail)
            details = _details(task.attempt, pid, told)
            self._submitters.tell(claim.submitter, claim.task_id, ended.kind, *details)
        self.tasks.pop(task.id, None)
        if all(claim.task_id != task.id for claim in claims):  # else it stays until its submitter confirms
            self.leave_unclaimed(task.id, Unclaimed(ended.kind, task.attempt, ended.detail))
        if not claims and not self.keeps_unclaimed:
            text = "The task %s of the pool %s has ended (%s), and nobody waits for it"
            logger.info(text, escaped(str(getattr(task.work, "target", "?"))), pool.name, ended.kind)

    def _let_in(self, pool: Pool, waiting: deque[Action]) -> bool:
        """Let tasks in that wait until fewer wait. Returns whether that makes more to do."""
        while pool.outside and not pool.core.is_full and not waiting:
            task = pool.outside.take()
            for claim in task.owner or ():
                self._submitters.tell(claim.submitter, claim.task_id, ACCEPTED)
            waiting += pool.core.submit(task, time.monotonic())
        return bool(waiting)

    # -- the time

    def _set_timer(self, pool: Pool) -> None:
        at = pool.core.wake_at
        if at is not None and at < self._wakes_at:
            self._timer.stop()
            self._timer.close()
            self._wakes_at = at
            self._timer = self._loop.timer(max(0.0, at - time.monotonic()))
            self._timer.start(self._tick)

    def _tick(self) -> None:
        self._wakes_at = float("inf")
        now = time.monotonic()
        for pool in list(self.pools.values()):
            self._perform(pool, pool.core.tick(now))

    # -- what is told

    def size(self, name: str) -> int:
        """Return how many processes of a pool take tasks."""
        pool = self.pools.get(name)
        return 0 if pool is None else sum(not process.is_closed for process in pool.core.processes)

    def counts(self) -> list[dict[str, Any]]:
        """Tell of each pool how many tasks wait and run."""
        return [
            {
                "name": pool.name,
                "processes": len(pool.core.processes),
                "running": sum(bool(process.tasks) for process in pool.core.processes),
                "waiting": pool.core.waiting + len(pool.outside),
                "queue_size": pool.core.queue_size,
            }
            for pool in self.pools.values()
        ]

    def shown(self, pool: Pool) -> list[dict[str, Any]]:
        """Tell of each task of a pool what it is and where."""
        return [self._shown(task) for task in [*pool.core.tasks.values(), *pool.outside]]

    def _shown(self, task: Task) -> dict[str, Any]:
        link = task.process.handle if task.process is not None else None
        runs = task.state is State.SENT and task is task.process.tasks[0]
        work: Work | None = task.work
        return {
            "id": task.id,
            "target": work.target if work is not None else "",
            "state": "running" if runs else "waiting",
            "attempt": task.attempt,
            "priority": task.priority,
            "key": getattr(task.key, "text", None),
            "pid": link.pid if runs and link is not None else None,
            "submitters": sorted({claim.submitter.pid for claim in task.owner or ()}),
        }


def task_of(pool: Pool, entry: list[Any]) -> Task:
    """Make the task of a submission's entry. Raises TypeError or ValueError if it is none."""
    task_id, target, form, payload, timeout, soft_timeout, priority, retries, key = entry
    work = Work(
        target,
        form,
        payload,
        pool.timeout if timeout is None else float(timeout),
        pool.soft_timeout if soft_timeout is None else float(soft_timeout),
    )
    size = len(payload) + len(target) + _SMALL_BYTES
    return Task(task_id, work, priority=int(priority), retries=int(retries), key=key_of(key), size=size)


def _details(attempt: int, pid: int | None, told: Any) -> list[Any]:
    """Return the fields of an end's event; ``told`` is a `Done`, a `TaskProcessGone`, a text or None."""
    payload = told if isinstance(told, str) else getattr(told, "payload", None)
    times = [getattr(told, name, None) or None for name in ("started_at", "ended_at", "signal")]
    return [payload, attempt, pid, *times]
