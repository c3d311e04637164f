"""The pools of a dispatcher: who waits for which outcome, and what a submission becomes; processes are made up."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rpccluster.ipc.fdpass import memory_file
from rpccluster.ipc.messages import TaskProcess, TaskProcessGone
from rpccluster.ipc.scoreboard import Scoreboard
from rpccluster.pools.core import Task
from rpccluster.services.dispatcher.dispatch import FULL, TAKEN, WAITS, Claim, Dispatch, task_of
from rpccluster.services.dispatcher.journal import Journal
from rpccluster.services.dispatcher.keys import key_of
from rpccluster.services.dispatcher.link import TaskLink
from rpccluster.services.dispatcher.recovery import Left, of_gone, of_living
from rpccluster.services.dispatcher.service import Dispatcher
from rpccluster.services.dispatcher.submitters import Submitter, Submitters
from rpccluster.tasks.wire import Done, Inbound, Progress, Run, pack_done, pack_progress

from .made_up import Loop


class Process:
    """A task process: what it was sent, and what it tells."""

    def __init__(self, rig: Rig, serial: int = 1, has: Task | None = None) -> None:
        ours, self.socket = socket.socketpair()
        self.socket.setblocking(False)
        self.serial = serial
        self._inbound = Inbound()
        tickets = os.pipe2(os.O_NONBLOCK)
        message = TaskProcess(serial, "a", 0, os.getpid(), 1)
        self.link = TaskLink(message, [ours.detach(), *tickets], rig.scoreboard.row(1), rig.journal)
        rig.dispatch.join(self.link, has)
        rig.processes.append(self)

    def sent(self) -> list[Run]:
        try:
            return list(self._inbound.feed(self.socket.recv(1 << 20)))
        except BlockingIOError:
            return []


class Rig:
    """A dispatch of one pool, and a submitter."""

    def __init__(self) -> None:
        self.memory = memory_file(name="journal")
        self.loop = Loop()
        self.journal = Journal(self.memory)
        self.scoreboard = Scoreboard(4)
        self.killed: list[tuple[int, int]] = []
        self.processes: list[Process] = []
        self.submitters = Submitters(self.loop, 7, lambda submitter: self.dispatch.forget(submitter))
        kill = lambda serial, number: self.killed.append((serial, number))  # noqa: E731
        self.dispatch = Dispatch(self.loop, self.journal, self.submitters, kill)
        self.dispatch.set_pools({"a": {"queue_size": 2, "timeout": 5.0}})
        self.pool = self.dispatch.pools["a"]

    def submitter(self, number: int = 1) -> Submitter:
        return self.submitters.of(f"{os.getpid()}-{number}")

    def submit(self, task_id: int, by: int = 1, *, key: str | None = None, waits: bool = True, retries: int = 0) -> str:
        task = task_of(self.pool, [task_id, "jobs:run", "pickle", b"", None, None, 0, retries, key])
        return self.dispatch.submit(self.pool, task, Claim(self.submitter(by), task_id), waits=waits)

    def does(self, process: Process, outcome: str = "ok") -> None:
        """Let it tell the end of what it was sent last."""
        run = process.sent()[-1]
        process.socket.send(pack_done(Done(run.number, run.task_id, run.attempt, outcome, b"result", 1.0, 2.0)))
        self.dispatch._read(process.link)

    def succeed(self) -> None:
        """Let another dispatcher go on, by what the journal says alone."""
        for process in self.processes:
            process.link.close()
        self.journal = Journal(self.memory)
        self.submitters = Submitters(self.loop, 8, lambda submitter: self.dispatch.forget(submitter))
        self.dispatch = Dispatch(self.loop, self.journal, self.submitters, lambda *_: None)
        self.dispatch.set_pools({"a": {"queue_size": 2, "timeout": 5.0}})
        self.dispatch.keeps_unclaimed = True
        self.pool = self.dispatch.pools["a"]

    def told(self, by: int = 1) -> list[list[Any]]:
        return [event[1:4] for event in self.submitter(by).events()]

    def close(self) -> None:
        for process in self.processes:
            process.socket.close()
            process.link.close()
        os.close(self.memory)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def test_a_task_is_sent_and_its_end_told(rig: Rig) -> None:
    """With the pool's limit; the journal has it until its submitter has confirmed."""
    process = Process(rig)
    assert rig.submit(11) == TAKEN
    assert [entry.task_id for entry in rig.journal.entries()] == [11]
    rig.does(process)
    assert rig.told() == [[11, "ok", b"result"]]
    assert (rig.dispatch.tasks, len(rig.journal)) == ({}, 1)
    for task_id in rig.submitter().confirm(1):
        rig.journal.clear(task_id)
    assert len(rig.journal) == 0


def test_a_full_pool_lets_wait_or_refuses(rig: Rig) -> None:
    """What waits outside is let in, and told so, when there is room."""
    assert [rig.submit(task_id) for task_id in (1, 2, 3)] == [TAKEN, TAKEN, WAITS]
    assert rig.submit(4, waits=False) == FULL
    assert rig.dispatch.counts()[0]["waiting"] == 3
    Process(rig)
    assert rig.told() == [[3, "accepted"]]


def test_a_key_stands_for_one_task(rig: Rig) -> None:
    """All that submitted it hear its end; one that cancels leaves it to the others, the last one ends it."""
    process = Process(rig)
    assert [rig.submit(1, 1, key="k"), rig.submit(2, 2, key="k"), rig.submit(3, 3, key="k")] == [TAKEN] * 3
    rig.dispatch.cancel(2)
    assert [event[:2] for event in rig.told(2)] == [[2, "cancelled"]]
    assert rig.killed == []
    rig.does(process)
    assert (rig.told(1), rig.told(3)) == ([[1, "ok", b"result"]], [[3, "ok", b"result"]])
    assert rig.submit(4, 1, key="k") == TAKEN
    rig.dispatch.cancel(4)
    assert [serial for serial, _ in rig.killed] == [1]


def test_a_key_stands_for_one_task_of_a_full_pool(rig: Rig) -> None:
    """Which waits outside: it is let in once, and each of its submitters hears of that and of its end."""
    assert [rig.submit(task_id) for task_id in (1, 2)] == [TAKEN, TAKEN]
    assert [rig.submit(3, 1, key="k"), rig.submit(4, 2, key="k")] == [WAITS, WAITS]
    assert rig.dispatch.counts()[0]["waiting"] == 3
    process = Process(rig)
    assert rig.told(2) == [[4, "accepted"]]
    for _ in range(3):
        rig.does(process)
    assert [event[:2] for event in rig.told(1)[1:]] == [[task_id, "ok"] for task_id in (1, 2, 3)]
    assert [event[:2] for event in rig.told(2)] == [[4, "accepted"], [4, "ok"]]
    assert rig.submit(5, key="k") == TAKEN


def test_a_task_that_is_cancelled_does_not_stand_for_its_key(rig: Rig) -> None:
    """While its process is being killed another one is begun."""
    process, other = Process(rig), Process(rig, serial=2)
    assert rig.submit(1, key="k") == TAKEN
    begun = [*process.sent(), *other.sent()]
    rig.dispatch.cancel(1)
    assert rig.submit(2, key="k") == TAKEN
    ((serial, number),) = rig.killed
    rig.dispatch.bury(TaskProcessGone(serial, "a", 0, os.getpid(), number, "cancelled"))
    assert number == begun[0].number
    rig.does(process if serial == 2 else other)
    assert [event[:2] for event in rig.told()] == [[1, "cancelled"], [2, "ok"]]


def test_progress_is_told_where_the_first_submitter_has_cancelled(rig: Rig) -> None:
    """To the others that share the task by its key."""
    process = Process(rig)
    rig.submit(1, 1, key="k")
    rig.submit(2, 2, key="k")
    (run,) = process.sent()
    rig.dispatch.cancel(1)
    process.socket.send(pack_progress(Progress(run.number, 1, 3, 4, "half")))
    rig.dispatch._read(process.link)
    assert [event[1:] for event in rig.submitter(2).events()] == [[2, "progress", 3, 4, "half"]]


def test_the_tasks_of_a_submitter_that_has_gone_are_ended(rig: Rig) -> None:
    """Those that wait at once, the running one by a kill; those that others want go on."""
    process = Process(rig)
    rig.submit(1, 1)
    rig.submit(2, 1)
    rig.submit(3, 1, key="k")
    rig.submit(4, 2, key="k")
    (run,) = process.sent()
    rig.submitters.leave(rig.submitter(1))
    assert rig.killed == [(1, run.number)]
    assert [task["id"] for task in rig.dispatch.shown(rig.pool)] == [1, 3]
    rig.dispatch.bury(TaskProcessGone(1, "a", 0, os.getpid(), run.number, "cancelled"))
    assert [task["id"] for task in rig.dispatch.shown(rig.pool)] == [3]
    assert rig.dispatch.cancel(99) is False


def test_what_an_ended_process_has_not_begun_is_forgotten_until_somebody_says_what_it_is(rig: Rig) -> None:
    """An earlier dispatcher had sent it; then it is submitted again, and runs elsewhere."""
    known = Task(8)
    known.number = 5
    rig.dispatch.keeps_unclaimed = True
    Process(rig, serial=1, has=known)
    other = Process(rig, serial=2)
    rig.dispatch.bury(TaskProcessGone(1, "a", 0, os.getpid(), 0, "lost"))
    assert rig.dispatch.counts()[0]["waiting"] == 0
    assert (rig.dispatch.tasks, rig.dispatch.unclaimed) == ({}, {})
    assert rig.submit(8) == TAKEN
    assert [run.task_id for run in other.sent()] == [8]


def test_a_pool_that_goes_ends_its_tasks(rig: Rig) -> None:
    """As rejected, with the reason, also those that wait outside."""
    for task_id in (1, 2, 3):
        rig.submit(task_id)
    rig.dispatch.set_pools({})
    assert rig.told() == [[task_id, "rejected", "there is no pool a any more"] for task_id in (1, 2, 3)]


def test_one_that_ends_leaves_what_has_not_begun(rig: Rig) -> None:
    """It sends nothing more, and is drained when the running task has ended."""
    process = Process(rig)
    rig.submit(1)
    rig.submit(2)
    rig.dispatch.drain()
    assert not rig.dispatch.is_drained
    rig.does(process)
    assert rig.dispatch.is_drained
    assert process.sent() == []
    assert rig.dispatch.complete()
    assert [task["state"] for task in rig.dispatch.shown(rig.pool)] == ["waiting"]


def repeat(rig: Rig, process: Process, task_id: int) -> None:
    """Let a task with a retry fail, and be sent again."""
    rig.submit(task_id, retries=1)
    rig.does(process, "raised")
    rig.dispatch._perform(rig.pool, rig.pool.core.tick(time.monotonic() + 60))


def test_an_attempt_counts_beyond_the_dispatcher(rig: Rig) -> None:
    """A task that waits for its last attempt when the dispatcher is killed has one left, not all of them."""
    repeat(rig, Process(rig), 1)
    rig.dispatch.bury(TaskProcessGone(1, "a", 0, os.getpid(), 0, "lost"))  # before it began the second one
    assert list(rig.journal.entries()) == []
    rig.succeed()
    process = Process(rig, serial=2)
    rig.submit(1, retries=1)
    rig.does(process, "raised")
    (told,) = rig.submitter().events()
    assert (told[1:3], told[4]) == ([1, "raised"], 2)


def test_an_attempt_counts_where_its_process_is_told_of_first(rig: Rig) -> None:
    """A successor that learns that a task had not begun, before its submitter sends it again."""
    repeat(rig, Process(rig), 1)
    rig.succeed()
    left = Left(rig.journal.entries())
    service = Dispatcher(rig.dispatch, rig.submitters, rig.journal, left)
    service.is_open = True
    service.settle(list(of_gone(left.take(1), TaskProcessGone(1, "a", 0, os.getpid(), 0, "lost", begun=0))))
    process = Process(rig, serial=2)
    entry = [1, "jobs:run", "pickle", b"", None, None, 0, 1, None, True]
    assert service.submit(f"{os.getpid()}-1", [8, 1], "a", [entry]) == [TAKEN]
    assert [run.attempt for run in process.sent()] == [2]


def test_an_attempt_that_nobody_claims_is_forgotten(rig: Rig) -> None:
    """With the time in which submitters send again; nothing of it stays in the journal."""
    repeat(rig, Process(rig), 1)
    rig.dispatch.bury(TaskProcessGone(1, "a", 0, os.getpid(), 0, "lost"))
    rig.succeed()
    rig.dispatch.end_unclaimed()
    assert (rig.dispatch.attempts, len(rig.journal)) == ({}, 0)


def test_what_a_submitter_left_open_is_not_begun_when_it_has_gone(rig: Rig) -> None:
    """It has sent a task again whose fate was not known yet."""
    process = Process(rig)
    rig.submit(1)
    process.sent()
    rig.succeed()
    left = Left(rig.journal.entries())
    service = Dispatcher(rig.dispatch, rig.submitters, rig.journal, left)
    service.is_open = True
    token, entry = f"{os.getpid()}-1", [1, "jobs:run", "pickle", b"", None, None, 0, 0, None, True]
    assert service.submit(token, [8, 1], "a", [entry]) == [TAKEN]
    service.forget(rig.submitter())
    rig.dispatch.end_unclaimed()
    other = Process(rig, serial=2)
    service.settle(list(of_gone(left.take(1), TaskProcessGone(1, "a", 0, os.getpid(), 0, "lost", begun=0))))
    assert (other.sent(), rig.dispatch.tasks, rig.dispatch.attempts, len(rig.journal)) == ([], {}, {}, 0)


def test_a_key_stands_for_what_runs_for_an_earlier_dispatcher(rig: Rig) -> None:
    """Another one that shares the task sends it again first: it does not run twice, and both hear of its end."""
    process = Process(rig)
    rig.submit(1, 1, key="k")
    rig.submit(2, 2, key="k")
    (run,) = process.sent()
    rig.succeed()
    left = Left(rig.journal.entries())
    service = Dispatcher(rig.dispatch, rig.submitters, rig.journal, left)
    (runs,) = service.settle(list(of_living(left.take(1), (), (), run.number, run.number)))
    again, other = Process(rig, serial=1, has=runs), Process(rig, serial=2)
    assert [rig.submit(2, 2, key="k", retries=1), rig.submit(3, 3, key="k")] == [TAKEN, TAKEN]
    rig.dispatch.claim(
        Claim(rig.submitter(1), 1), task_of(rig.pool, [1, "jobs:run", "pickle", b"", None, None, 0, 0, "k"])
    )
    assert (other.sent(), rig.dispatch.shown(rig.pool)[0]["key"], runs.retries) == ([], "k", 1)
    again.socket.send(pack_done(Done(run.number, 1, 1, "ok", b"result", 1.0, 2.0)))
    rig.dispatch._read(again.link)
    told = [[number, "ok", b"result"] for number in (1, 2, 3)]
    assert [event for by in (1, 2, 3) for event in rig.told(by)] == told
    assert rig.submit(4, key="k") == TAKEN
    assert [run.task_id for run in (*again.sent(), *other.sent())] == [4]


def test_keys_have_numbers() -> None:
    """Another one each, but for numbers that are equal."""
    keys = ["1", "k", "", 1, 0, -1, 2.5, float("inf"), 1 << 63]
    assert len({key_of(key) for key in keys}) == len(keys)
    assert (key_of(1), key_of(None)) == (key_of(1.0), None)
    with pytest.raises(TypeError):
        key_of([])
