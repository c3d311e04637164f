"""A little master with real task processes: limits, kills, spares, recycling, and nothing that is left behind.

Full scale (RPCCLUSTER_FULL_SCALE=1) is what ``docs/pools.md`` has figures of.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rpccluster.ipc.messages import TaskProcessGone
from rpccluster.system.processes.descendants import descendants
from rpccluster.tasks.wire import Done, unpack_failure
from tests.plugin.born import module

from .little import Little, little

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))

JOBS = """
import ctypes, os, signal, subprocess, time
from rpccluster import SoftTimeLimit

def spin():
    while True:
        pass

def sleep_in_c():
    ctypes.CDLL(None).sleep(60)

def sleep_in_c_with_the_gil():
    ctypes.PyDLL(None).sleep(60)

def compute_in_c():
    3 ** 30_000_000

def ignore_term():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)

def fork_children():
    for leave in (False, True):
        if os.fork() == 0:
            if leave:
                os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            time.sleep(600)
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    time.sleep(60)

def count(path, seconds=0):
    with open(path, "a") as file:
        file.write("x")
    time.sleep(seconds)
    return os.getpid()

def take(megabytes, step=16):
    held = []
    while len(held) * step < megabytes:
        held.append(b"x" * (step << 20))
    time.sleep(30)

def take_in_children(megabytes, number):
    for _ in range(number):
        if os.fork() == 0:
            held = b"x" * (megabytes << 20)
            time.sleep(600)
    time.sleep(30)

def clean_up(path):
    try:
        time.sleep(60)
    except SoftTimeLimit:
        open(path, "w").close()
        spin()
"""
KINDS = ["spin", "sleep_in_c", "compute_in_c", "ignore_term", "fork_children"]
if sys.implementation.name == "cpython":
    KINDS += ["sleep_in_c_with_the_gil"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Where the tasks are found."""
    return [module(tmp_path_factory.mktemp("jobs"), JOBS, "jobs_of_a_little")]


def made(path: list[str], **options: Any) -> Any:
    """A program that may run all of them."""
    return little(path=path, targets=["jobs_of_a_little", "os", "os:_exit"], **options)


def job(name: str) -> str:
    """The target of one of the tasks."""
    return f"jobs_of_a_little:{name}"


def settle(program: Little, spare: int = 1) -> None:
    """Wait until all processes are there, and no other descendant than the warden."""
    wanted = 2 + spare + 1
    program.wait(lambda: len(program.processes) == 2 and len(descendants(program.master.pid)) == wanted)


def test_tasks_run_in_its_processes(path: list[str]) -> None:
    """Two at once, and one spare, which gets none; no kill of one is seen by another."""
    with made(path) as program:
        pids = {program.result("os:getpid") for _ in range(20)}
        settle(program)
        assert pids <= {each.pid for each in program.processes.values()}
        assert {each.slot for each in program.processes.values()} == {0, 1}


@pytest.mark.timeout(900 if FULL_SCALE else 60)
def test_each_task_ends_at_its_limit_whatever_it_does(path: list[str]) -> None:
    """Told once, no stray process, and the pool is whole again."""
    number = 2000 if FULL_SCALE else 4
    with made(path) as program:
        program.result("os:getpid")
        settle(program)
        tasks = [program.submit(job(kind), timeout=0.1) for _ in range(number) for kind in KINDS]
        program.wait(lambda: len(program.outcomes) == len(tasks) + 1, 800)
        settle(program)
        ends = [program.outcomes[task] for task in tasks]
    assert Counter(message.cause for message, _, _ in ends) == {"timed_out": len(tasks)}
    assert {message.signal for message, _, _ in ends} == {signal.SIGKILL}
    late = sorted(at - message.started_at - 0.1 for message, at, _ in ends)
    print(f"lateness: median {late[len(late) // 2] * 1e3:.1f} ms, p99 {late[int(len(late) * 0.99)] * 1e3:.1f} ms")
    assert late[0] > 0


def test_a_spare_takes_the_place_of_one_that_is_killed(path: list[str]) -> None:
    """Before a successor has booted."""
    with made(path) as program:
        settle(program)
        before = {each.pid for each in program.processes.values()}
        spare = set(descendants(program.master.pid)) - before
        program.run(job("spin"), timeout=0.05)
        program.wait(lambda: len(program.processes) == 2)
        assert {each.pid for each in program.processes.values()} - before <= spare


def test_what_was_begun_is_told_by_the_cells(path: list[str], tmp_path: Path) -> None:
    """A process that is killed from outside names the task that it had begun; one without a task none."""
    with made(path) as program:
        settle(program)
        for number in range(100 if FULL_SCALE else 5):
            begun = tmp_path / str(number)
            task = program.submit(job("count"), str(begun), 60)
            program.wait(begun.exists)
            victim = next(each for each in program.processes.values() if each.running == task)
            os.kill(victim.pid, signal.SIGKILL)
            program.wait(partial(program.outcomes.__contains__, task))
            gone = program.outcomes[task][0]
            assert (gone.cause, gone.signal, gone.number) == ("lost", signal.SIGKILL, task)
            assert gone.started_at == pytest.approx(time.time(), abs=30)
            settle(program)
        idle = next(iter(program.processes.values()))
        os.kill(idle.pid, signal.SIGKILL)
        program.wait(lambda: program.gone[-1].pid == idle.pid)
        assert program.gone[-1].number == 0
        settle(program)


def test_processes_that_die_in_their_tasks_cost_no_pause(path: list[str]) -> None:
    """However many: restart_delay is for those that cannot boot."""
    with made(path, spare=0) as program:
        for _ in range(10):
            gone = program.run("os:_exit", 3)
            assert (gone.cause, gone.status, gone.signal) == ("lost", 3, 0)
        assert program.run("os:_exit", 0).cause == "lost"
        settle(program, spare=0)


def test_a_cancelled_task_is_killed_and_no_other(path: list[str]) -> None:
    """The number must be that of the task that runs."""
    with made(path) as program:
        task = program.submit(job("spin"))
        program.wait(lambda: any(each.running == task for each in program.processes.values()))
        time.sleep(0.05)
        program.kill_task(task)
        program.wait(lambda: task in program.outcomes)
        assert program.outcomes[task][0].cause == "cancelled"
        settle(program)


def test_max_tasks_is_exact(path: list[str]) -> None:
    """A process ends after that many, and the next task runs in another one."""
    with made(path, max_tasks=3) as program:
        pids = Counter(program.result("os:getpid") for _ in range(30))
        assert max(pids.values()) == 3
        assert {gone.cause for gone in program.gone} == {"recycled"}
        settle(program)


def test_an_old_process_is_replaced_when_it_is_idle(path: list[str]) -> None:
    """``max_lifetime`` ends no task."""
    with made(path, max_lifetime=0.5, stop_timeout=0.1) as program:
        task = program.submit(job("count"), os.devnull, 1.5)
        program.wait(lambda: task in program.outcomes)
        assert type(program.outcomes[task][0]) is Done
        program.wait(lambda: len(program.gone) >= 2)
        assert {gone.cause for gone in program.gone} == {"recycled"}


@pytest.mark.parametrize(("name", "args"), [("take", (1024,)), ("take_in_children", (60, 5))])
def test_a_task_that_takes_too_much_memory_is_ended(path: list[str], name: str, args: tuple[int, ...]) -> None:
    """By its master, its children's memory counted; or by the hard stop."""
    with made(path, max_memory=200 << 20) as program:
        found = program.run(job(name), *args)
        kind = found.cause if isinstance(found, TaskProcessGone) else found.outcome
        assert kind == "out_of_memory"
        settle(program)


def test_the_soft_limit_comes_before_the_hard_one(path: list[str], tmp_path: Path) -> None:
    """The task may clean up, and is killed anyway."""
    with made(path) as program:
        gone = program.run(job("clean_up"), str(tmp_path / "cleaned"), timeout=0.6, soft_timeout=0.2)
        assert gone.cause == "timed_out"
        assert (tmp_path / "cleaned").exists()


def test_targets_that_cannot_be_imported_are_told(path: list[str]) -> None:
    """To the program, with the reason."""
    with little(targets=["no_such_module"], spare=0) as program:
        program.wait(lambda: program.failures)
        assert "No module named 'no_such_module'" in program.failures[0].text


def test_any_target_can_be_allowed(path: list[str]) -> None:
    """It is imported when a task asks for it."""
    with little(path=path, targets=["*"]) as program:
        assert program.result("posixpath:join", "a", "b") == "a/b"
        rejected = program.run("no_such_module:run")
        assert rejected.outcome == "rejected"
        assert "No module named 'no_such_module'" in unpack_failure(rejected.payload).message


def test_a_graceful_end_lets_tasks_end(path: list[str], tmp_path: Path) -> None:
    """And nothing is left."""
    with made(path) as program:
        task = program.submit(job("count"), str(tmp_path / "begun"), 0.3)
        program.wait((tmp_path / "begun").exists)
        children = descendants(program.master.pid)
        assert program.stop(10.0) == 0
        assert program.outcomes[task][0].outcome == "ok"
        assert not any(os.path.exists(f"/proc/{pid}") for pid in children)


@pytest.mark.parametrize("signum", [None, signal.SIGKILL])
def test_nothing_outlives_the_program(path: list[str], signum: int | None) -> None:
    """Whether it goes, or its little master is killed."""
    with made(path) as program:
        settle(program)
        program.submit(job("fork_children"))
        program.wait(lambda: len(descendants(program.master.pid)) >= 8)
        children = descendants(program.master.pid)
        if signum is not None:
            program.master.send_signal(signum)
            program.master.wait()
            program.master.returncode = 0
        else:
            program.channel.close()
            program.master.wait(30)
        give_up_at = time.monotonic() + 30
        while any(os.path.exists(f"/proc/{pid}") and not _is_zombie(pid) for pid in children):
            assert time.monotonic() < give_up_at
            time.sleep(0.01)


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
