"""Pools of a cluster: tasks that workers submit run in processes of their own, and every one has one outcome."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rpccluster import Client
from rpccluster.testing import RunningCluster, wait_until

MakeCluster = Callable[..., RunningCluster]

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))

JOBS = """
import os
import time


def double(number):
    return 2 * number


def fails():
    raise KeyError("no such thing")


def waits_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    return os.getpid()


def noted(number, seconds=0.0):
    with open("begun", "a") as begun:
        begun.write(f"{number}\\n")
    time.sleep(seconds)
    return number
"""

SERVICE = """
import os

import gevent
import rpccluster


class Shop:
    def double(self, number):
        return rpccluster.pool("a").submit("jobs:double", number).result()

    def sum(self, number):
        return sum(rpccluster.pool("a").map("jobs:double", range(number)))

    def failure(self, target, options):
        try:
            return rpccluster.pool("a").submit(target, **options).result()
        except rpccluster.TaskFailure as failure:
            return [failure.kind, failure.type, failure.message, failure.attempt]

    def refused(self, name):
        futures = [rpccluster.pool("a").submit("jobs:waits_for", "may_end")]
        try:
            while len(futures) < 100:
                futures.append(rpccluster.pool("a").submit("jobs:waits_for", "may_end", wait=False))
        except rpccluster.PoolFull:
            return len(futures)
        finally:
            for future in futures:
                future.cancel()

    def odd(self):
        found = []
        for option in ({"key": 1 << 70}, {"key": b"k"}, {"priority": 1 << 70}, {"retries": "x"}, {"timeout": object()}):
            try:
                rpccluster.pool("a").submit("jobs:double", 1, **option)
            except Exception as error:
                found.append(type(error).__name__)
        return found

    def interrupted(self):
        futures = []
        try:
            while True:
                futures.append(rpccluster.pool("a").submit("jobs:waits_for", "may_end", wait=False))
        except rpccluster.PoolFull:
            pass
        try:
            with gevent.Timeout(0.2):
                rpccluster.pool("a").submit("jobs:noted", "interrupted")
        except gevent.Timeout:
            return len(futures)
        finally:
            for future in futures:
                future.cancel()

    def leaves(self, seconds):
        rpccluster.pool("a").submit("jobs:noted", "left by a call", seconds)
        return os.getpid()

    def outcomes(self, numbers, seconds):
        futures = [rpccluster.pool("a").submit("jobs:noted", number, seconds, timeout=60) for number in numbers]
        found = []
        for number, future in zip(numbers, futures):
            try:
                found.append([number, "ok" if future.result() == number else "another one's"])
            except rpccluster.TaskFailure as failure:
                found.append([number, failure.kind])
        return found
"""


@pytest.fixture
def made(make_cluster: MakeCluster) -> RunningCluster:
    """A cluster of two workers and a pool of two processes, not started yet."""
    cluster = make_cluster(service="shop:Shop", chdir=".", sections={"pool:a": {"processes": 2, "targets": "jobs"}})
    cluster.write_module("jobs", JOBS)
    cluster.write_module("shop", SERVICE)
    return cluster


def dispatcher(cluster: RunningCluster, *others: int) -> int:
    """The pid of the dispatcher, which is ready and none of ``others``."""

    def ready() -> int:
        group = next(each for each in cluster.status()["groups"] if each["name"] == "pools")
        found = [each["pid"] for each in group["processes"] if each["state"] == "ready"]
        return found[0] if found and found[0] not in others else 0

    return wait_until(ready)


def test_a_worker_submits(made: RunningCluster) -> None:
    """One, many, one that fails, one that is none of the targets, more than may wait."""
    made.write_section("pool:a", {**made.sections["pool:a"], "queue_size": 5})
    made.start()
    with made.client() as client:
        assert client.call("double", 21) == 42
        assert client.call("sum", 200) == 200 * 199
        assert client.call("failure", "jobs:fails", {}) == ["raised", "KeyError", "'no such thing'", 1]
        assert client.call("failure", "jobs:fails", {"retries": 1})[3] == 2
        assert client.call("failure", "os:getpid", {})[0] == "rejected"
        limit = {"path": "never", "timeout": 0.1}
        assert client.call("failure", "jobs:waits_for", limit)[0] == "timed_out"
        wait_until(lambda: sum(each["state"] == "ready" for each in made.group("pool:a")["processes"]) >= 2)
        assert 6 <= client.call("refused", "a") <= 8


def test_a_submission_that_cannot_be_leaves_nothing(made: RunningCluster) -> None:
    """Whatever its options are, and if it is interrupted; what is submitted after that has its outcome."""
    made.write_section("pool:a", {**made.sections["pool:a"], "queue_size": 5})
    made.start()
    first = dispatcher(made)
    with made.client() as client:
        assert client.call("odd") == ["OverflowError", "TypeError", "ValueError", "TypeError", "TypeError"]
        os.kill(first, signal.SIGKILL)
        assert dispatcher(made, first) != first
        assert client.call("double", 21) == 42
        assert client.call("interrupted") >= 5
        wait_until(lambda: not json.loads(made.run("pool", "tasks", "a", "--json").stdout))
        assert client.call("double", 21) == 42
    assert not (made.folder / "begun").exists()


class Outcomes(threading.Thread):
    """A caller whose call submits many tasks; ``found`` are their outcomes."""

    def __init__(self, cluster: RunningCluster, numbers: range, seconds: float = 0.0) -> None:
        super().__init__(daemon=True)
        self._cluster, self._numbers, self._seconds = cluster, numbers, seconds
        self.found: list[Any] | None = None
        self.start()

    def run(self) -> None:
        with self._cluster.client(timeout=120) as client:
            self.found = client.call("outcomes", list(self._numbers), self._seconds)


class Load(threading.Thread):
    """A caller that calls again and again until ``enough``; ``found`` are the outcomes of all its tasks, of 1 ms."""

    def __init__(self, address: str, hundreds: Iterator[int], enough: threading.Event) -> None:
        super().__init__(daemon=True)
        self._address, self._hundreds, self._enough = address, hundreds, enough
        self.found: list[Any] = []
        self.has_ended_well = False
        self.start()

    def run(self) -> None:
        with Client(self._address, timeout=120) as client:
            while not self._enough.is_set():
                first = 100 * next(self._hundreds)
                self.found += client.call("outcomes", list(range(first, first + 100)), 0.001)
        self.has_ended_well = True


def test_a_killed_dispatcher_loses_nothing(made: RunningCluster) -> None:
    """No future hangs, none has another's result; what was begun runs once or is lost, the rest runs."""
    made.start()
    chosen, enough, begun = random.Random(1), threading.Event(), made.folder / "begun"
    hundreds = itertools.count()
    callers = [Load(made.address, hundreds, enough) for _ in range(12)]  # more tasks than may wait
    killed: list[int] = []
    for _ in range(100 if FULL_SCALE else 6):
        pid = dispatcher(made, *killed)
        size = (begun.stat().st_size if begun.exists() else 0) + chosen.choice([0, 1, 50, 1000])
        wait_until(lambda at_least=size: begun.exists() and begun.stat().st_size >= at_least)
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)
    enough.set()
    for caller in callers:
        caller.join(120)
    assert all(caller.has_ended_well for caller in callers)
    outcomes = dict(outcome for caller in callers for outcome in caller.found)
    assert set(outcomes.values()) <= {"ok", "process_lost"}
    assert len(outcomes) == 100 * next(hundreds)
    ran = Counter(map(int, begun.read_text().split()))
    assert ran == Counter(outcomes.keys())  # once each: what had not begun has run, what is lost had begun


def test_a_journal_of_another_format_is_left_unread(made: RunningCluster) -> None:
    """Its tasks begin anew in other processes: those that ran them are ended, and it is told."""
    made.start()
    begun = made.folder / "begun"
    first = dispatcher(made)
    with made.client() as client:
        waiting = client.call_async("outcomes", [1, 2], 3.0)
        wait_until(lambda: begun.exists() and begun.read_text().count("\n") == 2, what="both have begun")
        descriptors = Path(f"/proc/{made.master_pid}/fd")
        journal = next(each for each in descriptors.iterdir() if "rpccluster-dispatcher" in os.readlink(each))
        file = os.open(journal, os.O_RDWR)
        os.kill(first, signal.SIGSTOP)
        os.pwrite(file, bytes(8), 0)
        os.close(file)
        os.kill(first, signal.SIGKILL)
        dispatcher(made, first)
        assert waiting.result(60) == [[1, "ok"], [2, "ok"]]
        assert client.call("double", 21) == 42
    assert begun.read_text().count("\n") == 4
    assert "left tasks in a form unknown here" in made.log_text()


def test_the_commands_show_and_cancel(made: RunningCluster) -> None:
    """Pools, their tasks, the end of one; what is not there is told, with 1."""
    made.start()
    caller = Outcomes(made, range(3), 60.0)
    tasks = wait_until(lambda: [each for each in shown(made, "tasks", "a") if each["state"] == "running"][1:])
    assert tasks[0]["target"] == "jobs:noted"
    assert tasks[0]["submitters"][0] in made.worker_pids()
    assert "a     2          2        1" in made.run("pool", "list").stdout
    assert made.run("pool", "cancel", str(tasks[0]["id"])).returncode == 0
    with made.control() as control:
        for task in control.call("pool.tasks", "a"):
            control.call("pool.cancel", task["id"])
    caller.join(60)
    assert sorted(caller.found or ()) == [[0, "cancelled"], [1, "cancelled"], [2, "cancelled"]]
    again = made.run("pool", "cancel", str(tasks[0]["id"]))
    assert (again.returncode, "no task" in again.stderr) == (1, True)
    other = made.run("pool", "tasks", "b")
    assert (other.returncode, "found no pool 'b'" in other.stderr) == (1, True)


def shown(cluster: RunningCluster, *words: str) -> list[Any]:
    told: list[Any] = json.loads(cluster.run("pool", *words, "--json").stdout)
    return told


PLUGINS = """
import asyncio
import threading
import time

import rpccluster


def in_threads(plugin):
    pool, found = rpccluster.pool("a"), []
    done = threading.Thread(target=lambda: found.extend(pool.map("jobs:double", range(100))))
    done.start()
    done.join()
    told = []
    pool.submit("jobs:fails", on_error=lambda failure: told.append(failure.kind))
    assert pool.wait(timeout=30)
    note("threads", sum(found), told)


def under_asyncio(plugin):
    asyncio.run(main())


async def main():
    futures = [rpccluster.pool("a").submit("jobs:double", number, wait=False) for number in range(10)]
    note("asyncio", sum(await asyncio.gather(*map(asyncio.wrap_future, futures))))


def leaves(plugin):
    rpccluster.pool("a").submit("jobs:noted", "left", 2.0)
    plugin.stopping.wait()


def note(*words):
    with open("noted", "a") as noted:
        noted.write(f"{words}\\n")
"""


def test_plugins_submit(made: RunningCluster) -> None:
    """From threads, and under asyncio by its futures."""
    made.write_module("plugins", PLUGINS)
    for name in ("in_threads", "under_asyncio"):
        made.write_section(f"plugin:{name}", {"run": f"plugins:{name}", "restart": "never"})
    made.start()
    noted = made.folder / "noted"
    wait_until(lambda: noted.exists() and len(noted.read_text().splitlines()) == 2)
    assert sorted(noted.read_text().splitlines()) == ["('asyncio', 90)", "('threads', 9900, ['raised'])"]


def test_one_that_retires_waits_for_its_tasks(made: RunningCluster) -> None:
    """A worker that is recycled, and a plugin that is stopped; the tasks of one that is killed are ended."""
    made.write_module("plugins", PLUGINS)
    made.write_section("plugin:leaves", {"run": "plugins:leaves"})
    made.start()
    begun = made.folder / "begun"
    wait_until(lambda: begun.exists() and "left" in begun.read_text())
    assert made.run("plugin", "stop", "leaves").returncode == 0
    with made.client() as client:
        pid = client.call("leaves", 0.5)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: pid not in made.worker_pids())
        assert "is ended" not in made.log_text()
        assert "are ended" not in made.log_text()
    with made.client() as client:
        pid = client.call("leaves", 60.0)
        wait_until(lambda: shown(made, "tasks", "a"))
        os.kill(pid, signal.SIGKILL)
    made.wait_log("has gone: its 1 tasks are ended")
    wait_until(lambda: not shown(made, "tasks", "a"))
