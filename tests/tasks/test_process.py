"""The process of a pool by itself: each task has exactly one outcome, whatever it does."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from rpccluster.config.sections.pool import PoolOptions
from rpccluster.ipc.messages import BootFailed, Ready, Switch, WantsToRetire
from rpccluster.ipc.scoreboard import CommonCell, TaskCell
from rpccluster.live_settings import Given
from rpccluster.tasks.wire import MSGPACK, OK, RPC, Progress, Run, pack_run
from tests.plugin.born import module

from .born import Born, born

JOBS = """
import ctypes, os, pickle, signal, sys, threading, time
import rpccluster
from rpccluster.tasks.current import task

def add(*args, **kwargs):
    return sum(args) + sum(kwargs.values())

def stop(seconds=60):
    time.sleep(seconds)

def fail(kind="ValueError", text="no"):
    raise {"ValueError": ValueError, "TimeoutError": TimeoutError, "MemoryError": MemoryError}[kind](text)

def leave(code=3):
    sys.exit(code)

def leave_at_once(code=3):
    os._exit(code)

class Odd(Exception):
    def __init__(self, one, two):
        self.lock = threading.Lock()
    def __str__(self):
        raise RuntimeError("never")
    def __reduce__(self):
        raise RuntimeError("never")

def raise_odd():
    raise Odd(1, 2)

def unpackable():
    return threading.Lock()

def fork():
    if os.fork() == 0:
        return "child"
    os.wait()
    return "parent"

def fork_and_fail():
    if os.fork() == 0:
        raise ValueError("in the child")
    return os.waitstatus_to_exitcode(os.wait()[1])

def close_all():
    os.closerange(0, 1000)

def clean_up(seconds=30):
    try:
        time.sleep(seconds)
    except rpccluster.SoftTimeLimit as error:
        return str(error)

def spin(seconds=30):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass

def tell(steps):
    for step in range(steps):
        task().progress(step + 1, steps, "going")
    return task().id, task().attempt

def take(megabytes):
    return len(b"x" * (megabytes << 20))

class Resize:
    def runnable(self, *args):
        return ["resized", *args]

class Point:
    def __init__(self, x):
        self.x = x
    def double(self=None):
        return 2

def _private():
    return 1

number = 7
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a module of tasks."""
    return module(tmp_path_factory.mktemp("jobs"), JOBS, "jobs_of_a_pool")


@pytest.fixture
def process(jobs: str) -> Iterator[Born]:
    """A process that may run all of that module."""
    with born(PoolOptions(targets=("jobs_of_a_pool", "os:getpid"), pythonpath=(jobs,))) as process:
        assert process.heard() == Ready([])
        yield process


def job(name: str) -> str:
    """The target of a function of that module."""
    return f"jobs_of_a_pool:{name}"


def test_it_runs_one_task_after_another(process: Born) -> None:
    """In one process, with any arguments; a module or a function may be a target."""
    assert process.run(job("add"), 1, 2, kwargs={"three": 3}) == 6
    assert process.run(job("add")) == 0
    assert process.run("os:getpid") == process.pid
    assert process.row[TaskCell.TASKS] == 3


def test_its_cells_say_what_it_runs(process: Born) -> None:
    """The number and the deadline, from before the begin until it has told the end."""
    number = process.send(job("stop"), 0.2, timeout=50.0)
    while not process.row[CommonCell.RUNNING]:
        time.sleep(0.001)
    assert process.row[CommonCell.RUNNING] == number
    assert process.row[TaskCell.DEADLINE] == pytest.approx(time.monotonic_ns() + 50e9, abs=5e9)
    assert process.row[TaskCell.STARTED_AT] == pytest.approx(time.time_ns(), abs=5e9)
    done = process.says()
    assert (done.outcome, done.number) == (OK, number)
    assert 0.2 <= done.ended_at - done.started_at < 10
    assert process.run(job("add")) == 0
    assert process.row[TaskCell.DEADLINE] == 0


def test_the_master_is_woken_at_the_deadline(process: Born) -> None:
    """And once for many short tasks with the same limit."""
    process.send(job("stop"), timeout=0.1)
    assert process.rings(20)
    assert process.row[TaskCell.DEADLINE] <= time.monotonic_ns()


def test_a_task_that_ends_in_time_wakes_the_master_at_most_once(process: Born) -> None:
    """It then finds nothing that is due."""
    for _ in range(50):
        assert process.run(job("add"), 1, timeout=0.3) == 1
    assert process.rings(20)
    process.timer.drain()
    assert not process.rings(0.4)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("subprocess:run", "expected one of: jobs_of_a_pool, os:getpid"),
        ("os:system", "expected one of: jobs_of_a_pool, os:getpid"),
        (job("os.system"), "expected a function or a class"),
        (job("_private"), "expected one of"),
        (job("number"), "expected a function or a class"),
        (job("ad"), "did you mean add?"),
        ("jobs_of_a_pool", "expected one of"),
        ("", "expected one of"),
    ],
)
def test_what_is_no_target_is_rejected(process: Born, target: str, told: str) -> None:
    """Its arguments are not touched: they would raise another error."""
    outcome, failure = process.run(target, payload=b"no pickle")
    assert (outcome, told in failure.message) == ("rejected", True), failure


def test_arguments_that_cannot_be_unpacked_are_rejected(process: Born) -> None:
    """And arguments that do not fit are the task's own error."""
    outcome, failure = process.run(job("add"), payload=b"no pickle")
    assert (outcome, failure.message.startswith("cannot unpack the arguments: ")) == ("rejected", True)
    assert process.failure(job("stop"), 1, 2).type == "TypeError"
    outcome, failure = process.run(job("add"), payload=b"\xc1", form="msgpack")
    assert outcome == "rejected"
    assert process.run(job("add"), form="other")[0] == "rejected"


def test_a_class_is_a_target(process: Born) -> None:
    """Its `runnable`, a new instance, or a method of it."""
    assert process.run(job("Resize"), 1, 2) == ["resized", 1, 2]
    assert process.run(job("Point.double")) == 2
    assert process.failure(job("Point")).type == "TypeError"


def test_what_a_task_raises_is_told_in_texts(process: Born) -> None:
    """Type, message, and a traceback that begins in the task; its own TimeoutError and MemoryError are no limits."""
    failure = process.failure(job("fail"))
    assert (failure.type, failure.message) == ("ValueError", "no")
    assert failure.traceback.splitlines()[1].endswith("in fail")
    assert process.failure(job("fail"), "TimeoutError").type == "TimeoutError"
    assert process.failure(job("fail"), "MemoryError").type == "MemoryError"
    assert process.failure(job("raise_odd")).type == "Odd"


def test_a_result_that_cannot_be_packed_is_an_error(process: Born) -> None:
    """The process goes on."""
    failure = process.failure(job("unpackable"))
    assert failure.type == "ResultNotPacked"
    assert failure.message.startswith("cannot pack the result: ")
    assert process.run(job("add")) == 0


def test_exits(process: Born) -> None:
    """SystemExit is raised like any other; a real exit ends the process in the middle of the task."""
    assert process.failure(job("leave")) [:2] == ("SystemExit", "3")  # fmt: skip
    number = process.send(job("leave_at_once"))
    assert process.says() is None
    assert process.ended() == 3
    assert process.row[CommonCell.RUNNING] == number


def test_a_task_may_fork(process: Born) -> None:
    """The child ends when it returns, and tells nothing."""
    assert process.run(job("fork")) == "parent"
    assert process.run(job("fork_and_fail")) == 1
    assert process.run(job("add"), 5) == 5


def test_a_task_that_closes_all_descriptors_ends_its_process(process: Born) -> None:
    """Nobody can be told, so the process ends in the middle of the task."""
    number = process.send(job("close_all"))
    assert process.says() is None
    assert process.ended() == 1
    assert process.row[CommonCell.RUNNING] == number


@pytest.mark.parametrize("name", ["clean_up", "spin", "stop"])
def test_the_soft_limit_is_raised_in_the_task(process: Born, name: str) -> None:
    """In a call that waits, and in a loop; what the task does about it is its own."""
    found = process.run(job(name), soft_timeout=0.05)
    told = "the task has run for 0.05 seconds (soft_timeout)"
    assert found == told if name == "clean_up" else found[1][:2] == ("SoftTimeLimit", told)
    assert process.run(job("stop"), 0.2) is None  # it is over


def test_progress_comes_before_the_end(process: Born) -> None:
    """The last one always, and not each of thousands."""
    number = process.send(job("tell"), 5000)
    said: list[Any] = []
    while type(message := process.says()) is Progress:
        said.append(message)
    assert said[0] == Progress(number, number, 1, 5000, "going")
    assert said[-1] == Progress(number, number, 5000, 5000, "going")
    assert len(said) < 1000
    assert message.outcome == OK


def test_a_task_that_was_sent_ahead_runs_if_its_ticket_is_there(process: Born) -> None:
    """One that was taken back is dropped in silence."""
    process.send(job("stop"), 0.3)
    process.send(job("add"), 1, ticket=1)
    process.send(job("add"), 2, ticket=2)
    assert [process.says().number for _ in range(3)] == [1, 2, 3]


def test_tasks_that_were_taken_back_do_not_begin(jobs: str) -> None:
    """A later one does, also if its ticket was found too early."""
    with born(PoolOptions(targets=("jobs_of_a_pool",), pythonpath=(jobs,))) as process:
        process.send(job("add"), 2, ticket=2)
        first = process.says()
        for number, ticket in ((50, 3), (51, 4)):  # without their tickets: these were read back
            process.socket.sendall(pack_run(Run(number, number, 1, job("add"), "pickle", b"", ticket=ticket)))
        process.send(job("add"), 5, ticket=5)
        assert [first.number, process.says().number] == [1, 2]


def test_other_forms(jobs: str) -> None:
    """A queue's item is one value; the results of both are MessagePack."""
    with born(PoolOptions(targets=("jobs_of_a_pool",), pythonpath=(jobs,))) as process:
        assert msgpack.unpackb(process.run(job("add"), form=MSGPACK, payload=msgpack.packb(5))) == 5
        assert process.run(job("unpackable"), form=MSGPACK, payload=msgpack.packb(5))[0] == "raised"
        assert process.run("add", form=RPC, payload=msgpack.packb([5]))[0] == "rejected"


def test_it_ends_when_its_socket_is_closed(process: Born) -> None:
    """The master shuts it down to wake it."""
    process.socket.shutdown(1)
    assert process.says() is None
    assert process.ended() == 0


def test_it_begins_nothing_once_it_is_told_to_leave(process: Born) -> None:
    """Not even what is already there."""
    process.send(job("stop"), 0.2)
    process.send(job("add"))
    process.row[TaskCell.LEAVES] = 1
    seen = [message.number for message in iter(process.says, None)]
    assert seen in ([], [1])
    assert process.ended() == 0


def test_it_begins_nothing_once_it_is_condemned(process: Born) -> None:
    """The kill that follows must not hit another task."""
    number = process.send(job("stop"), 0.2)
    process.row[TaskCell.CONDEMNED] = number
    process.send(job("add"))
    assert [message.number for message in iter(process.says, None)] == [number]


def test_it_ends_after_its_last_task(process: Born) -> None:
    """It says why; what comes later has not begun."""
    process.row[TaskCell.MOST_TASKS] = 2
    for _ in range(3):
        process.send(job("add"))
    assert [message.number for message in iter(process.says, None)] == [1, 2]
    assert process.heard() == WantsToRetire("max_tasks")
    assert process.ended() == 0


def data_bytes() -> int:
    """What RLIMIT_DATA counts of this process. Source: proc(5), VmData."""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) << 10


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA")
def test_memory_has_a_hard_stop(jobs: str) -> None:
    """A task that takes too much at one blow cannot; the next one can take what it may."""
    most = (400 << 20) + data_bytes()  # the process is a fork of the tests', whose memory it begins with
    with born(PoolOptions(targets=("jobs_of_a_pool",), pythonpath=(jobs,), max_memory=most)) as process:
        outcome, failure = process.run(job("take"), 2 * most >> 20)
        assert (outcome, failure.type) == ("out_of_memory", "MemoryError")
        assert process.run(job("take"), 100) == 100 << 20
        assert process.rings(20)


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        ("no_such_module", "cannot load the targets: ModuleNotFoundError: No module named 'no_such_module'"),
        ("jobs_of_a_pool:nothing", "cannot load the targets: AttributeError"),
    ],
)
def test_targets_that_cannot_be_imported_keep_it_from_booting(jobs: str, targets: str, told: str) -> None:
    """With the reason."""
    with born(PoolOptions(targets=(targets,), pythonpath=(jobs,))) as process:
        failed = process.heard()
        assert type(failed) is BootFailed
        assert failed.text.startswith(told)
        assert process.ended() == 3


def test_a_kill_ends_all_of_its_group(process: Born) -> None:
    """It leads one; nothing of it ignores KILL."""
    process.send(job("stop"))
    while not process.row[CommonCell.RUNNING]:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.ended() == -signal.SIGKILL


def test_the_methods_of_a_service(tmp_path: Path) -> None:
    """Made once, told once; only those that are marked for this pool."""
    text = """
from types import SimpleNamespace
def mark(pool):
    def decorate(function):
        function.__rpc__ = SimpleNamespace(name=None, pool=pool)
        return function
    return decorate

class Shop:
    made = started = 0
    def __init__(self):
        Shop.made += 1
    def task_process_started(self):
        Shop.started += 1
    @mark("thing")
    def count(self, *more):
        return [Shop.made, Shop.started, *more]
    @mark("other")
    def other(self):
        return 1
    def plain(self):
        return 1
"""
    options = PoolOptions(service="shop_of_a_pool:Shop", pythonpath=(module(tmp_path, text, "shop_of_a_pool"),))
    with born(options) as process:
        for _ in range(2):
            found = process.run("count", form=RPC, payload=msgpack.packb([7]))
            assert msgpack.unpackb(found) == [1, 1, 7]
        for name in ("other", "plain", "none"):
            outcome, failure = process.run(name, form=RPC, payload=msgpack.packb([]))
            assert (outcome, failure.message) == (
                "rejected", f"found the method {name!r}, expected one marked @rpc(pool='thing')"
            )  # fmt: skip


SHOP = """
import rpccluster
settings = {"price": rpccluster.Setting(float, 1.0)}
seen = []

def price():
    return rpccluster.settings["price"], rpccluster.settings.version, seen

def settings_changed(old, new, changed):
    seen.append((old["price"], new["price"], sorted(changed)))
    if new["price"] == 13.0:
        raise ValueError("unlucky")
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Born]:
    """A process whose targets declare settings."""
    options = PoolOptions(targets=("shop_with_settings",), pythonpath=(module(tmp_path, SHOP, "shop_with_settings"),))
    with born(options, settings=Given(3, {"price": "2"}, {})) as process:
        assert process.heard() == Ready([])
        yield process


def switch(process: Born, version: int, price: str) -> None:
    """What the master does."""
    process.channel.send(Switch(version, {"price": price}, {}))
    process.row[TaskCell.SETTINGS] = version


def test_a_task_sees_the_settings_with_which_it_begins(shop: Born) -> None:
    """The hook is told before the task."""
    assert shop.run("shop_with_settings:price") == (2.0, 3, [])
    assert shop.row[CommonCell.SETTINGS_VERSION] == 3
    switch(shop, 4, "5")
    switch(shop, 5, "6")
    assert shop.run("shop_with_settings:price") == (6.0, 5, [(2.0, 6.0, ["price"])])
    assert shop.row[CommonCell.SETTINGS_VERSION] == 5


def test_settings_that_are_refused_leave_it_as_it_was(shop: Born) -> None:
    """The next version is looked at again."""
    switch(shop, 4, "cheap")
    assert shop.run("shop_with_settings:price") == (2.0, 3, [])
    switch(shop, 5, "6")
    assert shop.run("shop_with_settings:price") == (6.0, 5, [(2.0, 6.0, ["price"])])


def test_a_process_whose_hook_raises_is_replaced(shop: Born) -> None:
    """Before the task begins."""
    switch(shop, 4, "13")
    shop.send("shop_with_settings:price")
    assert shop.says() is None
    assert shop.heard() == WantsToRetire("settings_changed failed")
    assert shop.ended() == 0
    assert shop.row[CommonCell.RUNNING] == 0
