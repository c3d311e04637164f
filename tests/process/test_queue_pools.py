"""Pools that drain queues: ack on success, another attempt or death by the kind of failure, leases that are renewed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rpccluster import Queue
from rpccluster.testing import RunningCluster, wait_until

TASKS = """
import os, time

def run(job):
    with open(job["log"], "a") as log:
        log.write(f"begin {job['name']} {os.getpid()}\\n")
    if job["do"] == "raise":
        raise ValueError("no good")
    if job["do"] == "exit":
        os._exit(3)
    if job["do"] == "wait":
        while not os.path.exists(job["until"]):
            time.sleep(0.01)
    if job["do"] == "sleep":
        time.sleep(job["seconds"])
    with open(job["log"], "a") as log:
        log.write(f"end {job['name']} {os.getpid()}\\n")
"""


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunningCluster]:
    lease, timeout = getattr(request, "param", (60, 60))
    sections: dict[str, dict[str, object]] = {
        "queues": {"session_grace": 30},
        "queue:jobs": {"lease": lease, "max_attempts": 2},
        "pool:work": {"queue": "jobs", "targets": "tasks:run", "processes": 2, "timeout": timeout},
    }
    running = RunningCluster(tmp_path, {"service": None}, sections=sections)
    running.options = {
        key: value for key, value in running.options.items() if key not in ("service", "bind", "number_workers")
    }
    running.write_config()
    running.write_module("tasks", TASKS)
    try:
        running.start(are_ready=False)
        wait_until(running.try_status, 60, "the master answers")
        running.wait_group("pool:work")
        yield running
    finally:
        running.stop()


@pytest.fixture
def queue(cluster: RunningCluster) -> Iterator[Queue]:
    with Queue(cluster.wait_group("queues")["listeners"][0], "jobs") as queue:
        yield queue


def job(cluster: RunningCluster, name: str, do: str = "", **more: Any) -> dict[str, Any]:
    return {"name": name, "do": do, "log": str(cluster.folder / "done"), **more}


def lines(cluster: RunningCluster, what: str) -> list[str]:
    path = cluster.folder / "done"
    found = path.read_text().splitlines() if path.exists() else []
    return [line for line in found if line.startswith(f"{what} ")]


def test_items_are_tasks(cluster: RunningCluster, queue: Queue) -> None:
    """What ends well is acked, and runs once."""
    queue.put_many([job(cluster, str(number)) for number in range(200)])
    queue.join(60)
    assert queue.stats()["dead"] == 0
    assert sorted(line.split()[1] for line in lines(cluster, "end")) == sorted(map(str, range(200)))


def test_failures_have_their_attempts(cluster: RunningCluster, queue: Queue) -> None:
    """One that raises and one whose process ends are tried again, and are dead with the error; others go on."""
    queue.put_many([job(cluster, "raises", "raise"), job(cluster, "exits", "exit"), job(cluster, "good")])
    queue.join(60)
    dead = {each.value["name"]: each for each in queue.dead()}
    assert {name: each.attempts for name, each in dead.items()} == {"raises": 2, "exits": 2}
    assert dead["raises"].error == "raised: ValueError: no good"
    assert (dead["exits"].error or "").startswith("process_lost: ")
    assert len(lines(cluster, "begin")) == 5


def test_a_task_that_is_cancelled_is_dead(cluster: RunningCluster, queue: Queue) -> None:
    """By hand; it is not tried again."""
    queue.put(job(cluster, "cancelled", "sleep", seconds=60))
    wait_until(lambda: lines(cluster, "begin"))
    with cluster.control() as control:
        (task,) = control.call("pool.tasks", "work")
        control.call("pool.cancel", task["id"])
    dead = wait_until(queue.dead)
    assert [(each.attempts, each.error) for each in dead] == [(1, "cancelled: the task was cancelled")]
    assert len(lines(cluster, "begin")) == 1


@pytest.mark.parametrize("cluster", [(3, 8)], indirect=True)
def test_a_lease_is_renewed_while_its_task_runs(cluster: RunningCluster, queue: Queue) -> None:
    """A task of two leases runs once; one at its limit is killed, and tried again."""
    queue.put_many([job(cluster, "long", "sleep", seconds=6), job(cluster, "longer", "sleep", seconds=60)])
    wait_until(lambda: lines(cluster, "end"))
    wait_until(lambda: len(lines(cluster, "begin")) == 3)
    assert sorted(line.split()[1] for line in lines(cluster, "begin")) == ["long", "longer", "longer"]


def test_a_dispatcher_that_is_killed_runs_nothing_twice(cluster: RunningCluster, queue: Queue) -> None:
    """Its successor gets the item again, and finds the task that runs."""
    until = cluster.folder / "go"
    queue.put(job(cluster, "waits", "wait", until=str(until)))
    wait_until(lambda: lines(cluster, "begin"))
    pid = cluster.group("pools")["processes"][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: cluster.group("pools")["processes"][0]["pid"] not in (pid, None), what="another dispatcher")
    cluster.wait_group("pools")
    wait_until(lambda: queue.stats()["leased"] == 1, what="the item is held again")
    until.touch()
    queue.join(60)
    assert len(lines(cluster, "begin")) == len(lines(cluster, "end")) == 1
    assert queue.stats()["dead"] == 0


def test_a_keeper_that_is_killed(cluster: RunningCluster, queue: Queue) -> None:
    """The tasks run on, and are acked by the next one."""
    until = cluster.folder / "go"
    queue.put_many([job(cluster, name, "wait", until=str(until)) for name in "ab"])
    wait_until(lambda: len(lines(cluster, "begin")) == 2)
    os.kill(cluster.group("queues")["processes"][0]["pid"], signal.SIGKILL)
    until.touch()
    queue.join(60)
    queue.put(job(cluster, "c"))
    queue.join(60)
    assert sorted(line.split()[1] for line in lines(cluster, "begin")) == ["a", "b", "c"]
