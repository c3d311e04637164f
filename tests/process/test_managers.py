"""A program written for multiprocessing.managers runs with its import changed, and its consumers may be killed."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from pathlib import Path

import pytest

from rpccluster.compat.managers import BaseManager
from rpccluster.testing import is_alive, wait_until

COUNT = 10_000 if os.environ.get("RPCCLUSTER_FULL_SCALE") else 500
SECONDS = 120

HEAD = """
import os, queue, signal, sys, time
from multiprocessing import JoinableQueue
from rpccluster.compat.managers import BaseManager

address = sys.argv[1]
if ":" in address:
    host, _, port = address.rpartition(":")
    address = (host, int(port))

class Manager(BaseManager):
    pass
"""

MANAGER = """
jobs, seen = JoinableQueue(), JoinableQueue()
Manager.register("jobs", callable=lambda: jobs)
Manager.register("seen", callable=lambda: seen)
manager = Manager(address=address, authkey=b"abc")
manager.start()
where = manager._address
print(where if isinstance(where, str) else "%s:%d" % where, manager._process.ident, flush=True)
sys.stdin.read()
"""

OTHERS = """
Manager.register("jobs")
Manager.register("seen")
manager = Manager(address=address, authkey=b"abc")
manager.connect()
jobs, seen = manager.jobs(), manager.seen()
"""

PRODUCER = """
for number in range(int(sys.argv[2])):
    jobs.put(number)
jobs.join()
print("joined")
"""

CONSUMER = """
print("ready", flush=True)
while True:
    number = jobs.get()
    seen.put(number)
    jobs.task_done()
"""


def program(*parts: str) -> list[str]:
    return [sys.executable, "-c", HEAD + "".join(parts)]


def start(command: list[str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("where", ["unix", "tcp"])
def test_the_program(tmp_path: Path, where: str) -> None:
    """Manager, producer and consumer; a consumer is killed in the middle. All numbers come, the end removes all."""
    given = "127.0.0.1:0" if where == "tcp" else str(tmp_path / "queues.sock")
    running = [start(program(MANAGER), given)]
    try:
        assert running[0].stdout is not None
        address, ident = running[0].stdout.readline().split()
        running += [start(program(OTHERS, CONSUMER), address) for _ in range(2)]
        running.append(producer := start(program(OTHERS, PRODUCER), address, str(COUNT)))
        watcher = manager_at(address, b"abc")
        wait_until(lambda: watcher.seen().qsize() > COUNT // 10, SECONDS)  # type: ignore[attr-defined]
        running[1].kill()
        running.append(start(program(OTHERS, CONSUMER), address))
        assert producer.communicate(timeout=SECONDS)[0] == "joined\n"
        numbers, seen = set(), watcher.seen()  # type: ignore[attr-defined]
        with pytest.raises(queue.Empty):
            while True:
                numbers.add(seen.get(False))
        assert numbers == set(range(COUNT))
        running[0].kill()  # not even its end of the program can be announced
        wait_until(lambda: not is_alive(int(ident)), what="the keeper has ended with the program")
    finally:
        for process in running:
            process.kill()
            process.communicate()


def manager_at(address: str, authkey: bytes) -> BaseManager:
    kind = type("Watcher", (BaseManager,), {})
    kind.register("jobs")  # type: ignore[attr-defined]
    kind.register("seen")  # type: ignore[attr-defined]
    host, _, port = address.rpartition(":")
    manager: BaseManager = kind((host, int(port)) if host else address, authkey)
    manager.connect()
    return manager


def test_a_wrong_key() -> None:
    """Is refused, over TCP and by the socket's file; the right one goes on."""
    with type("Manager", (BaseManager,), {})(("127.0.0.1", 0), b"right") as manager:
        host, port = manager.address
        manager_at(f"{host}:{port}", b"right")
        with pytest.raises(ConnectionError):
            manager_at(f"{host}:{port}", b"wrong")


def test_a_manager_that_is_shut_down_leaves_nothing() -> None:
    """No process and no folder; a manager that cannot start says why."""
    kind = type("Manager", (BaseManager,), {})
    kind.register("jobs")  # type: ignore[attr-defined]
    manager = kind()
    manager.start()
    keeper = manager._process
    folder = Path(manager.address).parent
    manager.jobs().put("x")
    pid = os.fork()
    if pid == 0:  # the manager that a child inherits connects anew
        try:
            os._exit(0 if manager.jobs().get(timeout=10) == "x" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert keeper.is_alive() and folder.is_dir()
    manager.shutdown()
    assert not keeper.is_alive() and not folder.exists()
    with pytest.raises(RuntimeError, match="does not start"):
        kind(("192.0.2.1", 1)).start()
