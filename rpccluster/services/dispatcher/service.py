"""What the dispatcher serves: the methods by which submitters give tasks and take outcomes. Runs in the dispatcher.

`rpccluster.pools.cluster` is the other side. Each call names its submitter by a token. After a dispatcher has ended its
submitters send again all that they wait for, with the same ids: what is here already, or was sent to a process before,
is not begun another time.
"""

from __future__ import annotations

from typing import Any

from rpccluster.pools.core import Ended, Task, kinds
from rpccluster.service import Later, rpc
from rpccluster.services.dispatcher.dispatch import LATE, NO_POOL, TAKEN, Claim, Dispatch, Pool, Unclaimed, task_of
from rpccluster.services.dispatcher.journal import Journal
from rpccluster.services.dispatcher.keys import Key
from rpccluster.services.dispatcher.recovery import Fate, Finding, Left
from rpccluster.services.dispatcher.submitters import MOVING, Submitter, Submitters

__all__ = ["Dispatcher"]


class Dispatcher:
    """The methods of the dispatcher."""

    def __init__(self, dispatch: Dispatch, submitters: Submitters, journal: Journal, left: Left) -> None:
        """``left`` are the tasks whose fate an earlier dispatcher has left open."""
        self._dispatch = dispatch
        self._submitters = submitters
        self._journal = journal
        self._left = left
        self._open: dict[int, tuple[Pool, Task, Claim]] = {}  # submitted again, and their fate is not known yet
        self.is_open = False  # the master has told which pools there are
        self.is_retiring = False

    @rpc(name="pool.submit")
    def submit(self, token: str, round_: list[int], name: str, entries: list[list[Any]]) -> list[str]:
        """Take in tasks of the pool ``name``, each as [id, target, form, payload, timeout, soft_timeout, priority,
        retries, key, waits]. Returns for each what becomes of it: taken, waits, full, no pool, late.

        ``round_`` is the name of the dispatcher that it is for, and how often the submitter has begun to send all
        again: those of an earlier round come late, and were sent again since.
        """
        if not self.is_open:
            raise RuntimeError("the dispatcher starts: submit again when it has told its name")
        submitter, pool = self._submitters.of(token), self._dispatch.pools.get(name)
        if round_[0] != self._submitters.name or round_[1] < submitter.round:
            return [LATE] * len(entries)
        submitter.round = round_[1]
        if pool is None:
            return [NO_POOL] * len(entries)
        return [self._submit(submitter, pool, task_of(pool, entry[:-1]), waits=entry[-1]) for entry in entries]

    def _submit(self, submitter: Submitter, pool: Pool, task: Task, *, waits: bool) -> str:
        claim = Claim(submitter, task.id)
        if task.id in submitter.ended:  # it will hear of that
            return TAKEN
        if task.id in self._dispatch.tasks:
            self._dispatch.claim(claim, task)
            return TAKEN
        if task.id in self._left:
            self._open[task.id] = pool, task, claim
            return TAKEN
        found = self._dispatch.unclaimed.pop(task.id, None)
        if found is not None:
            self._end_again(pool, task, claim, found)
            return TAKEN
        return self._dispatch.submit(pool, task, claim, waits=waits)

    def take_in(self, submitter: Submitter, name: str, entry: list[Any]) -> None:
        """Take in a task of the pool ``name``, however many wait, for a submitter of this process."""
        pool = self._dispatch.pools[name]
        self._submit(submitter, pool, task_of(pool, entry), waits=True)

    @rpc(name="pool.take", later=True)
    def take(self, token: str, name: int, number: int) -> Later | list[Any]:
        """Return [the name of this dispatcher, its events for the submitter], once there are any.

        ``number`` is that of the last event that the submitter has heard from the dispatcher ``name``. It is answered
        at once if that is another one. One that starts or is about to end tells 0 as its name: ask again soon.
        """
        if not self.is_open:
            return [MOVING, []]
        submitter = self._submitters.of(token)
        if name in (self._submitters.name, MOVING):
            for task_id in submitter.confirm(number):
                self._journal.clear(task_id)
        if self.is_retiring:
            return [MOVING, submitter.events()]
        if name != self._submitters.name:
            return [self._submitters.name, []]
        if submitter.has_events:
            return [name, submitter.events()]
        return submitter.take()

    @rpc(name="pool.cancel")
    def cancel(self, token: str, ids: list[int]) -> None:
        """End tasks; how they have ended is told as ever."""
        for task_id in ids:
            if task_id in self._open:
                pool, task, claim = self._open.pop(task_id)
                claim.submitter.ids.add(task_id)
                self._dispatch.tasks[task_id] = pool, task
            self._dispatch.cancel(task_id)

    @rpc(name="pool.leave")
    def leave(self, token: str) -> None:
        """End all tasks of a submitter, which ends."""
        self._submitters.leave(self._submitters.of(token))

    def forget(self, submitter: Submitter) -> None:
        """End all tasks of a submitter that has gone, also those whose fate is not known yet."""
        self._open = {task_id: each for task_id, each in self._open.items() if each[2].submitter is not submitter}
        self._dispatch.forget(submitter)

    # -- what an earlier dispatcher has left

    def settle(self, findings: list[Finding]) -> list[Task]:
        """Go on with tasks whose fate is known now. Returns those that run."""
        return [task for task in (self._settle(finding) for finding in findings) if task is not None]

    def _settle(self, finding: Finding) -> Task | None:
        entry = finding.entry
        pool, task, claim = self._open.pop(entry.task_id, (None, None, None))
        if finding.fate is Fate.RUNS:
            runs = task or Task(entry.task_id, key=Key(entry.key) if entry.key else None)
            runs.number, runs.attempt = entry.number, entry.attempt
            if claim is not None:
                runs.owner = [claim]
                claim.submitter.ids.add(entry.task_id)
            return runs
        if finding.fate is Fate.NOT_BEGUN:
            self._journal.take_back(entry.task_id, entry.attempt)
            if pool is None or task is None or claim is None:
                self._dispatch.leave_open(entry.task_id, entry.attempt)
            else:
                task.attempt = entry.attempt
                self._dispatch.submit(pool, task, claim, waits=True)
            return None
        ended = _ended(finding)
        if pool is not None and task is not None and claim is not None:
            self._end_again(pool, task, claim, ended)
        else:
            self._dispatch.leave_unclaimed(entry.task_id, ended)
        return None

    def _end_again(self, pool: Pool, task: Task, claim: Claim, ended: Unclaimed) -> None:
        """Tell how a task has ended that ran for an earlier dispatcher, or repeat it."""
        task.attempt = ended.attempt
        if ended.kind in kinds.REPEATED and task.attempt <= task.retries:
            task.attempt += 1
            self._dispatch.submit(pool, task, claim, waits=True)
        else:
            self._dispatch.end(pool, Ended(task, ended.kind, ended.detail), claim)

    # -- the end

    def retire(self) -> None:
        """Answer all that wait, since a successor will tell them the rest."""
        self.is_retiring = True
        for submitter in self._submitters.all():
            submitter.answer([MOVING, submitter.events()])

    @property
    def is_at_rest(self) -> bool:
        """Whether each submitter has confirmed what it was told."""
        return not any(submitter.has_events for submitter in self._submitters.all())


def _ended(finding: Finding) -> Unclaimed:
    """Return how a task has ended that had begun."""
    if finding.gone is not None:
        kind = kinds.of_cause(finding.gone.cause)
        return Unclaimed(kind, finding.entry.attempt, (finding.gone.pid, finding.gone))
    done = finding.done
    return Unclaimed(kinds.PROCESS_LOST if done is None else done.outcome, finding.entry.attempt, (None, done))
