"""One `Queue` object in threads, greenlets and forks, and `rpccluster.queue` inside of a cluster's process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import rpccluster
from rpccluster import Queue
from rpccluster.client.sync import queue_inside
from rpccluster.client.threads import forks as forks_module
from rpccluster.testing import wait_until

from ..made_up_keeper import Keeper, keeping
from ..servers import Server


@pytest.fixture
def kept() -> Iterator[tuple[Keeper, Server]]:
    with keeping() as both:
        yield both


def sessions(keeper: Keeper, method: str) -> set[bytes]:
    return {params[-1]["session"] for name, params in list(keeper.seen) if name == method}


def test_a_forked_child_has_sessions_of_its_own(kept: tuple[Keeper, Server]) -> None:
    """What the parent holds stays the parent's; both go on."""
    keeper, server = kept
    with Queue(server.address, "jobs", timeout=20) as queue:
        queue.put_many(["a", "b", "c"])
        item = queue.get()
        assert item is not None
        pid = os.fork()
        if pid == 0:
            try:
                queue.put("of the child")
                with queue.get(5) as other:  # type: ignore[union-attr]
                    good = other.value == "b"
                with item:
                    pass
                os._exit(0 if good and not queue._verbs.needs_a_look else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert (item.id, 1) in keeper.leased
        item.ack()
        queue.put("of the parent")
    assert len(sessions(keeper, "queue.put")) == 2
    assert len(sessions(keeper, "queue.get")) == 2


def test_a_fork_of_which_python_is_not_told(kept: tuple[Keeper, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sessions are new before anything is numbered."""
    keeper, server = kept
    with Queue(server.address, "jobs") as queue:
        queue.put(1)
        forks_module.MARK[0] = 0  # as the kernel wipes it
        queue.put(2)
        assert len(sessions(keeper, "queue.put")) == 2


def test_the_watch_ends_with_its_queue(kept: tuple[Keeper, Server]) -> None:
    """Closed, or forgotten."""

    def watches() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "rpccluster queue"}

    others = watches()
    queues = [Queue(kept[1].address, "jobs") for _ in range(2)]
    queues[0].put_many([1, 2])
    for queue in queues:
        assert queue.get(1) is not None
    assert len(watches() - others) == 2
    queues[0].close()
    queues.clear()
    del queue

    def have_ended() -> bool:
        gc.collect()  # PyPy forgets only then
        return watches() <= others

    wait_until(have_ended, what="both have ended")


GREENLETS = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, sys
from rpccluster import Queue

queue = Queue(sys.argv[1], "jobs", timeout=20)
turns = []
ticker = gevent.spawn(lambda: [turns.append(gevent.sleep(0.001)) for _ in range(10**6)])
got = [gevent.spawn(queue.get) for _ in range(20)]
while queue.stats()["waiting"] < 20:
    gevent.sleep(0.01)
assert turns, "the others had their turns while 20 waited"

cancelled = got.pop()
cancelled.kill()
queue.put_many(range(30))
values = [job.get(timeout=20).value for job in got]
values += [queue.get(5).value for _ in range(11)]
assert sorted(values) == list(range(30)), values
for _ in range(30):
    queue.task_done()
queue.join()
print("good")
"""


def test_greenlets_share_one_object(kept: tuple[Keeper, Server]) -> None:
    """Each waits as a greenlet does; what a killed one would have got comes to the next."""
    program = [sys.executable, "-c", GREENLETS, kept[1].address]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "good\n", done.stderr


def test_the_queue_inside(kept: tuple[Keeper, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same object each time, at the address that the master tells; elsewhere a clear error."""
    monkeypatch.setattr(queue_inside, "_queues", {})
    monkeypatch.delenv("RPCCLUSTER_QUEUES", raising=False)
    with pytest.raises(RuntimeError, match=r"no cluster that has a section \[queues\]"):
        rpccluster.queue("jobs")
    monkeypatch.setenv("RPCCLUSTER_QUEUES", kept[1].address)
    queue = rpccluster.queue("jobs")
    assert rpccluster.queue("jobs") is queue
    assert queue.put("x") == 1
    queue.close()
