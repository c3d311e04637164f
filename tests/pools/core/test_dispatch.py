"""The core, case by case: what is sent where, what is repeated, how each task ends."""

from __future__ import annotations

import pytest

from rpccluster.errors import IllegalTransition
from rpccluster.pools.core import Result, Task
from rpccluster.pools.core.kinds import REPEATED, pause_seconds
from rpccluster.pools.core.process import STALL_SECONDS
from rpccluster.pools.core.task import NEXT, Event, State
from rpccluster.pools.core.waiting import OLDEST_EACH

from .made_up import Edge

SLOW = 1.0


def kinds(edge: Edge) -> list[tuple[int, str]]:
    """Return which tasks have ended, and how."""
    return [(action.task.id, action.kind) for action in edge.ended]


def test_a_task_goes_to_an_idle_process_at_once() -> None:
    """Without a ticket: there is nothing before it."""
    edge = Edge()
    made_up = edge.join()
    task = edge.submit()
    assert [(entry[0], entry[1]) for entry in made_up.inbox] == [(task, 0)]


def test_tasks_go_in_the_order_in_which_they_came() -> None:
    """Where all have one priority."""
    edge = Edge()
    tasks = [edge.submit() for _ in range(50)]
    made_up = edge.join()
    for _ in tasks:
        edge.run_one(made_up)
    assert kinds(edge) == [(task.id, "ok") for task in tasks]


def test_nothing_is_sent_ahead_before_a_task_is_known_to_be_short() -> None:
    """The first of a process has none behind it; after a short one many follow, after a long one none."""
    edge = Edge()
    made_up = edge.join()
    for _ in range(1000):
        edge.submit()
    assert len(made_up.process.tasks) == 1
    for _ in range(6):
        edge.run_one(made_up)
    assert len(made_up.process.tasks) > 50
    edge.run_one(made_up, seconds=SLOW)
    while len(made_up.process.tasks) > 1:
        edge.run_one(made_up, seconds=SLOW)
    edge.run_one(made_up, seconds=SLOW)
    assert len(made_up.process.tasks) == 1


def test_few_tasks_are_shared() -> None:
    """The first process that asks does not get all that wait."""
    edge = Edge()
    first, second = edge.join(), edge.join()
    for _ in range(2):
        edge.submit()
    for made_up in (first, second):
        edge.run_one(made_up)
    tasks = [edge.submit() for _ in range(12)]
    edge.run_one(first)
    assert len(first.process.tasks) <= len(tasks) // 2


def test_what_stands_behind_a_long_task_runs_elsewhere() -> None:
    """A process that has not ended anything for a while gives back what it has not begun."""
    edge = Edge()
    stuck, other = edge.join(), edge.join()
    for _ in range(60):
        edge.submit()
    for _ in range(3):
        edge.run_one(stuck)
        edge.run_one(other)
    stuck.begin()
    ahead = len(stuck.process.tasks)
    assert ahead > 2
    at = edge.core.wake_at
    assert at is not None and at <= edge.now + STALL_SECONDS
    edge.tick(STALL_SECONDS)
    assert len(stuck.process.tasks) == 1
    while other.begin():
        other.end()
        edge.read(other)
    assert len(edge.core.tasks) == 1
    stuck.end()
    edge.read(stuck)
    assert sorted(kinds(edge)) == [(number, "ok") for number in range(1, 61)]
    assert not stuck.begin()


def test_large_arguments_are_not_sent_far_ahead() -> None:
    """They would fill the socket."""
    edge = Edge()
    made_up = edge.join()
    for _ in range(100):
        edge.submit(size=1024 * 1024)
    for _ in range(3):
        edge.run_one(made_up)
    assert len(made_up.process.tasks) == 1


def test_a_higher_priority_goes_first() -> None:
    """Beside the tasks that are with a process already."""
    edge = Edge()
    edge.submit(), edge.submit()
    urgent = edge.submit(priority=5)
    edge.join()
    assert urgent.state is State.SENT


@pytest.mark.parametrize("priority", [1, 10, 10**9])
def test_a_low_priority_does_not_wait_for_ever(priority: int) -> None:
    """Behind an endless stream of what is more urgent the oldest has its turn."""
    edge = Edge()
    made_up = edge.join()
    edge.submit(priority=priority)
    patient = edge.submit()
    for _ in range(2 * OLDEST_EACH + 2):
        edge.submit(priority=priority)
        edge.run_one(made_up, seconds=SLOW)
    assert (patient.id, "ok") in kinds(edge)


def test_a_key_stands_for_one_task_until_it_ends() -> None:
    """While it waits, runs, or pauses before it is repeated."""
    edge = Edge()
    task = edge.submit(key="k", retries=1)
    assert edge.submit(key="k") is task
    made_up = edge.join()
    assert edge.submit(key="k") is task
    edge.run_one(made_up, "raised")
    assert task.state is State.PAUSED
    assert edge.submit(key="k") is task
    edge.tick(0.1)
    edge.run_one(made_up)
    assert edge.submit(key="k") is not task
    assert edge.submit(key="other") is not task


@pytest.mark.parametrize("kind", sorted(REPEATED))
def test_a_failure_is_repeated(kind: str) -> None:
    """As often as `retries` says, with the attempts counted; only the last is told."""
    edge = Edge()
    task = edge.submit(retries=2)
    for attempt in (1, 2, 3):
        made_up = edge.join()
        assert task.attempt == attempt
        assert made_up.begin()
        edge.bury(made_up, kind)
        edge.tick(pause_seconds(attempt))
    assert kinds(edge) == [(task.id, kind)]


@pytest.mark.parametrize("kind", ["ok", "rejected"])
def test_some_ends_are_final(kind: str) -> None:
    """A result, and a rejection."""
    edge = Edge()
    task = edge.submit(retries=5)
    edge.run_one(edge.join(), kind)
    assert kinds(edge) == [(task.id, kind)]


def test_a_pause_grows_up_to_half_a_minute() -> None:
    """From a tenth of a second, doubling."""
    assert [pause_seconds(attempt) for attempt in (1, 2, 3, 4)] == [0.1, 0.2, 0.4, 0.8]
    assert pause_seconds(9) == 25.6
    assert pause_seconds(10) == pause_seconds(5000) == 30.0


def test_a_paused_task_waits_for_its_time() -> None:
    """And is told of by `wake_at`."""
    edge = Edge()
    made_up = edge.join()
    task = edge.submit(retries=1)
    edge.run_one(made_up, "raised")
    assert edge.core.wake_at == pytest.approx(0.1)
    edge.tick(0.09)
    assert not made_up.begin()
    edge.tick(0.02)
    edge.run_one(made_up)
    assert kinds(edge) == [(task.id, "ok")]
    assert task.attempt == 2


def test_a_waiting_task_that_is_cancelled_is_gone() -> None:
    """It never runs; to cancel it again does nothing."""
    edge = Edge()
    task, other = edge.submit(), edge.submit()
    edge.cancel(task)
    edge.cancel(task)
    assert kinds(edge) == [(task.id, "cancelled")]
    made_up = edge.join()
    edge.run_one(made_up)
    assert kinds(edge)[1:] == [(other.id, "ok")]


def test_a_paused_task_that_is_cancelled_is_not_repeated() -> None:
    """Nothing is woken for its pause."""
    edge = Edge()
    made_up = edge.join()
    task = edge.submit(retries=1)
    edge.run_one(made_up, "raised")
    edge.cancel(task)
    assert edge.core.wake_at is None
    edge.tick(1)
    assert not made_up.begin()
    assert kinds(edge) == [(task.id, "cancelled")]


def test_a_paused_task_that_is_cancelled_behind_another_wakes_nobody() -> None:
    """When that one is repeated."""
    edge = Edge()
    made_up = edge.join()
    first, second = edge.submit(retries=1), edge.submit(retries=1)
    edge.run_one(made_up, "raised")
    edge.tick(0.05)
    edge.run_one(made_up, "raised")
    edge.cancel(second)
    assert edge.core.wake_at == pytest.approx(0.1)
    edge.tick(0.06)
    assert edge.core.wake_at is None
    edge.run_one(made_up)
    assert kinds(edge) == [(second.id, "cancelled"), (first.id, "ok")]


def test_a_running_task_that_is_cancelled_ends_with_its_process() -> None:
    """Not before: what it does goes on until then. It is not repeated."""
    edge = Edge()
    made_up = edge.join()
    task = edge.submit(retries=3)
    made_up.begin()
    edge.cancel(task)
    assert made_up.killed == [task.number]
    assert kinds(edge) == []
    edge.bury(made_up)
    assert kinds(edge) == [(task.id, "cancelled")]


def test_a_result_that_crosses_its_cancel_is_dropped() -> None:
    """`cancel` has said that the task is cancelled; its process, which nothing kills then, goes on."""
    edge = Edge()
    made_up = edge.join()
    task = edge.submit()
    made_up.begin()
    edge.cancel(task)
    made_up.end()
    edge.read(made_up)
    other = edge.submit()
    edge.run_one(made_up)
    assert kinds(edge) == [(task.id, "cancelled"), (other.id, "ok")]


def test_a_task_ahead_that_is_cancelled_kills_nobody() -> None:
    """It is taken back, with all others of its process, which run later."""
    edge = Edge()
    made_up = edge.join()
    for _ in range(20):
        edge.submit()
    edge.run_one(made_up)
    made_up.begin()
    ahead = made_up.process.tasks[1]
    edge.cancel(ahead)
    assert not made_up.killed
    assert kinds(edge)[-1] == (ahead.id, "cancelled")
    while made_up.running is not None:
        made_up.end()
        edge.read(made_up)
        made_up.begin()
    assert len(edge.ended) == 20


def test_a_kill_spares_what_stands_behind() -> None:
    """It runs elsewhere."""
    edge = Edge()
    made_up = edge.join()
    for _ in range(20):
        edge.submit()
    edge.run_one(made_up)
    made_up.begin()
    edge.cancel(made_up.process.tasks[0])
    edge.bury(made_up)
    other = edge.join()
    while other.begin():
        other.end()
        edge.read(other)
    assert sorted(kind for _, kind in kinds(edge)) == ["cancelled"] + 19 * ["ok"]


def test_what_had_not_begun_runs_elsewhere() -> None:
    """Whatever the process died of; no attempt is counted."""
    edge = Edge()
    made_up = edge.join()
    tasks = [edge.submit() for _ in range(20)]
    edge.run_one(made_up)
    made_up.begin()
    edge.bury(made_up)
    assert kinds(edge) == [(1, "ok"), (2, "process_lost")]
    other = edge.join()
    while other.begin():
        other.end()
        edge.read(other)
    assert [id for id, kind in kinds(edge) if kind == "ok"] == [task.id for task in tasks if task.id != 2]
    assert {task.attempt for task in tasks} == {1}


def test_a_result_that_waits_in_the_socket_counts() -> None:
    """Even if the cells still name the task."""
    edge = Edge()
    made_up = edge.join()
    task = edge.submit()
    made_up.begin()
    made_up.end(is_killed_before_it_clears=True)
    edge.bury(made_up)
    assert kinds(edge) == [(task.id, "ok")]


def test_a_strange_result_is_ignored() -> None:
    """Of a task that the process was not sent, or of an earlier attempt."""
    edge = Edge()
    made_up = edge.join()
    task = edge.submit()
    assert edge.core.done(made_up.process, [], edge.now) == []
    for task_id, attempt in ((task.id + 1, 1), (task.id, 2)):
        made_up.results.append(Result(task_id, attempt, "ok", 0.0, None))
        edge.read(made_up)
    assert kinds(edge) == []


def test_a_closed_process_gets_nothing_more() -> None:
    """It may end what it has."""
    edge = Edge()
    made_up, idle = edge.join(), edge.join()
    task = edge.submit()
    busy = made_up if made_up.process.tasks else idle
    for each in (made_up, idle):
        edge.core.close(each.process)
        edge.core.close(each.process)
    later = edge.submit()
    edge.run_one(busy)
    assert kinds(edge) == [(task.id, "ok")]
    assert later.state is State.WAITING
    assert edge.core.processes == []
    edge.bury(made_up)
    edge.bury(idle)


def test_a_new_dispatcher_takes_over_what_runs() -> None:
    """With its number; the numbers of the new one are above."""
    edge = Edge()
    made_up = edge.join()
    task = edge.submit(retries=1)
    made_up.begin()
    new = Edge()
    heir = Task(task.id, key="k")
    heir.number = task.number
    assert new.core.process_joined(made_up.process, 0.0, heir) == []
    assert new.core.keyed("k") is heir
    made_up.end()
    new.read(made_up)
    assert kinds(new) == [(task.id, "ok")]


def test_full_counts_all_that_wait() -> None:
    """Also behind others in a process, and before they are repeated; but none that may run."""
    edge = Edge(queue_size=3)
    made_up = edge.join()
    edge.submit()
    for expected in (0, 1, 2):
        assert edge.core.waiting == expected
        assert not edge.core.is_full
        edge.submit(retries=1)
    assert edge.core.is_full
    edge.run_one(made_up)
    assert edge.core.waiting == 2
    edge.run_one(made_up, "raised")
    assert edge.core.waiting == 2
    assert not edge.core.is_full


def test_many_that_are_cancelled_take_no_room() -> None:
    """Even if no process ever comes."""
    edge = Edge()
    for _ in range(10_000):
        edge.cancel(edge.submit())
    assert sum(map(len, edge.core._waiting._rows.values())) < 200
    assert not edge.core.tasks


def test_an_impossible_event_raises() -> None:
    """And changes nothing; every state but the last can be left."""
    task = Task(1)
    with pytest.raises(IllegalTransition, match="task 1 is waiting, and cannot resume"):
        task.step(Event.RESUME)
    assert task.state is State.WAITING
    assert {state for state, _ in NEXT} == set(State) - {State.ENDED}
