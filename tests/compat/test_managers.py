"""The proxies of a manager, against a keeper in memory; what is no queue is refused. Real ones: tests/process."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import JoinableQueue
from pathlib import Path

import pytest
from client.made_up_keeper import Keeper, keeping
from client.servers import Server

from rpccluster.compat.managers import BaseManager
from rpccluster.errors import LeaseLost
from rpccluster.testing import is_alive, wait_until


class Manager(BaseManager):
    """One with a queue."""


Manager.register("jobs", callable=lambda: JoinableQueue())


@pytest.fixture
def kept() -> Iterator[tuple[Keeper, Server]]:
    with keeping() as both:
        yield both


@pytest.fixture
def manager(kept: tuple[Keeper, Server]) -> Manager:
    manager = Manager(kept[1].name, b"")
    manager.connect()
    return manager


def test_a_queue_as_multiprocessing_has_it(manager: Manager, kept: tuple[Keeper, Server]) -> None:
    """Put, get, task_done, join, qsize, and what is raised."""
    jobs = manager.jobs()  # type: ignore[attr-defined]
    assert jobs.empty()
    jobs.put({"n": 1})
    jobs.put_nowait(2)
    assert jobs.qsize() == 2
    assert [jobs.get(), jobs.get(True, 1)] == [{"n": 1}, 2]
    for act in (jobs.get_nowait, lambda: jobs.get(False), lambda: jobs.get(timeout=0.01)):
        with pytest.raises(queue.Empty):
            act()
    jobs.task_done()
    jobs.task_done()
    with pytest.raises(ValueError, match="too many times"):
        jobs.task_done()
    jobs.join()
    kept[0].is_full = True
    with pytest.raises(queue.Full):
        jobs.put(1, False)
    with pytest.raises(TypeError, match="MessagePack"):
        jobs.put(object())


def test_the_connection_of_a_proxy(manager: Manager, kept: tuple[Keeper, Server]) -> None:
    """It may be closed, and deleted: the next call makes another one. What it held is others' then."""
    jobs = manager.jobs()  # type: ignore[attr-defined]
    jobs.put(1)
    jobs._tls.connection.close()
    assert jobs.get() == 1
    del jobs._tls.connection
    assert jobs.qsize() == 0
    assert kept[1].connections == 4  # that of connect() among them


def test_a_lease_that_was_lost(manager: Manager, kept: tuple[Keeper, Server]) -> None:
    """The consumer that comes too late learns it."""
    jobs = manager.jobs()  # type: ignore[attr-defined]
    jobs.put(1)
    jobs.get()
    kept[0].end_lease(1, 1)
    with pytest.raises(LeaseLost):
        jobs.task_done()


def test_what_is_no_queue_is_refused() -> None:
    """At its registration, or at the first method that a queue has not."""
    for refused in ({"callable": dict}, {"callable": int}, {"proxytype": object}, {"exposed": ("update",)}):
        with pytest.raises(TypeError, match="has queues alone"):
            Manager.register("other", **refused)  # type: ignore[arg-type]
    for taken in (JoinableQueue, queue.Queue, None, lambda: 1):
        type("Another", (BaseManager,), {}).register("some", taken)  # type: ignore[attr-defined]
    jobs = Manager("/nowhere", b"").jobs()  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"found 'update': .* has queues alone"):
        jobs.update({})


def test_queues_are_those_of_a_class() -> None:
    """A class has those of its base, and not the other way round."""
    below = type("Below", (Manager,), {})
    below.register("more")  # type: ignore[attr-defined]
    assert (Manager._registry, below._registry) == ({"jobs"}, {"jobs", "more"})  # type: ignore[attr-defined]


def test_addresses(kept: tuple[Keeper, Server]) -> None:
    """A path, a host and a port; nothing else."""
    with pytest.raises(TypeError, match="expected a path"):
        Manager(5, b"").connect()
    with pytest.raises(RuntimeError, match="not started"):
        Manager(None, b"").jobs()  # type: ignore[attr-defined]
    _, port = kept[1].name
    assert Manager(("", port), b"").jobs().qsize() == 0  # type: ignore[attr-defined]
    with pytest.raises(ConnectionError):
        Manager("/nowhere/at all", b"").connect()


def test_the_process_beside_ends_a_keeper_with_its_program(tmp_path: Path) -> None:
    """The program may be killed, and a child of it may live on. The folder goes; another process lives."""
    folder = tmp_path / "private"
    folder.mkdir()
    program = f"""
import os, subprocess, sys, time
keeper = subprocess.Popen(["sleep", "600"])
code = "from rpccluster.compat.managers.ending import main; main({{}}, {{!r}}, {{}})"
code = code.format(keeper.pid, {str(folder)!r}, os.getpid())
ending = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
child = os.fork() or os.execlp("sleep", "sleep", "600")
print(keeper.pid, ending.pid, child, flush=True)
time.sleep(600)
"""
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    keeper, ending, child = map(int, running.stdout.readline().split())
    try:
        wait_until(lambda: b"ending" in Path(f"/proc/{ending}/cmdline").read_bytes(), what="it watches")
        assert is_alive(keeper)
        running.kill()
        running.wait(10)
        wait_until(lambda: not is_alive(keeper) and not folder.exists() and not is_alive(ending), what="all has ended")
        assert is_alive(child)
    finally:
        for pid in (child, keeper):
            if is_alive(pid):
                os.kill(pid, 9)
        running.stdout.close()
