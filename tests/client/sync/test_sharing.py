"""One client for many: threads, greenlets in a patched process, and the children of a fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable

import pytest

from rpccluster.client import Client, Pool
from rpccluster.errors import Lost

from ..mixed import mixed_calls_of_threads
from ..servers import Server

CALLS = 20_000


def test_threads(client: Client, server: Server) -> None:
    """8 threads share one client: every result is its own call's, over one connection."""
    assert mixed_calls_of_threads(client, CALLS) == [0] * 8
    assert server.connections == 1


GREENLETS = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, sys
from client.mixed import mixed_calls
from rpccluster.client import Client
with Client(sys.argv[1], timeout=60) as client:
    jobs = [gevent.spawn(mixed_calls, client, worker, int(sys.argv[2]) // 200) for worker in range(200)]
    gevent.joinall(jobs, raise_error=True)
    print(sum(job.value for job in jobs))
"""

GREENLETS_AND_THREADS_OF_THE_OLD_KIND = """
from rpccluster.client import Client  # imported before it is patched
import gevent.monkey
gevent.monkey.patch_all()
import gevent, sys, time
with Client(sys.argv[1], timeout=60) as client:
    start = time.monotonic()
    sleepers = [gevent.spawn(client.call, "linger", 0.3, number) for number in range(100)]
    ticks = 0
    while not all(sleeper.ready() for sleeper in sleepers):
        gevent.sleep(0.01)
        ticks += 1
    assert [sleeper.get() for sleeper in sleepers] == list(range(100))
    assert time.monotonic() - start < 20 and ticks > 5, (time.monotonic() - start, ticks)
    victim = gevent.spawn(client.call, "sleep", 30)
    while not client.pending:
        gevent.sleep(0.001)
    victim.kill()
    with gevent.Timeout(5):
        assert client.call("echo", "next") == "next"
    try:
        with gevent.Timeout(0.05):
            client.call("sleep", 30)
    except gevent.Timeout:
        pass
    assert client.call("echo", b"x" * 5_000_000) == b"x" * 5_000_000
    print(0)
"""

FORKED_GREENLETS = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, os, sys
from rpccluster.client import Client
from rpccluster.errors import Lost
client = Client(sys.argv[1], timeout=20)
waiting = gevent.spawn(client.call, "linger", 0.5, "the parent's")
future = client.call_async("linger", 0.5, "the parent's, too")
while client.pending < 2:
    gevent.sleep(0.001)
pid = os.fork()
if not pid:
    assert client.call("echo", "child") == "child"
    assert isinstance(future.exception(5), Lost), future
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert waiting.get() == "the parent's" and future.result(5) == "the parent's, too"
print(0)
"""


@pytest.mark.parametrize("script", [GREENLETS, GREENLETS_AND_THREADS_OF_THE_OLD_KIND, FORKED_GREENLETS])
def test_greenlets(server: Server, script: str) -> None:
    """200 greenlets share one client in a patched process: every result is its own call's, and none blocks another.

    Nor does one that is killed in its wait, or a fork, harm the others.
    """
    tests = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script, server.address, str(CALLS)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])},
        stdout=subprocess.PIPE,
        timeout=110,
        check=True,
    )
    assert done.stdout.split() == [b"0"]


def in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked child; fail if it does not come to its end."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            signal.alarm(20)
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_fork(client: Client, server: Server) -> None:
    """A client that is used after a fork opens its own connection; the parent's goes on as if nothing had happened."""
    assert client.call("echo", "parent") == "parent"

    def work() -> None:
        for number in range(100):
            assert client.call("echo", number) == number
        assert client.call_async("echo", "future").result(10) == "future"

    for count in (2, 3):
        in_child(work)
        assert client.call("echo", "parent") == "parent"
        assert server.connections == count


def test_fork_with_pending_futures(client: Client, server: Server) -> None:
    """A fork ends the child's copies of the futures, and calls no callbacks there; the parent's get their results."""
    called: list[int] = []
    futures = [client.call_async("linger", 0.4, number) for number in range(20)]
    for future in futures:
        future.add_done_callback(lambda _: called.append(os.getpid()))

    def work() -> None:
        assert all(isinstance(future.exception(5), Lost) for future in futures)
        assert called == []
        assert client.call_async("echo", "child").result(10) == "child"

    in_child(work)
    assert [future.result(10) for future in futures] == list(range(20))
    deadline = time.monotonic() + 5
    while len(called) < 20:
        assert time.monotonic() < deadline
    assert set(called) == {os.getpid()}
    assert server.connections == 2


def test_fork_while_threads_call(client: Client) -> None:
    """A fork amid calls of other threads, which hold whatever they hold, leaves the child a client that works."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            client.call("echo", "x" * 100)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            in_child(lambda: client.call("sum", 1, 2) == 3 or os._exit(2))
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def test_fork_of_a_pool(server: Server) -> None:
    """A pool can be used after a fork, too."""
    with Pool([server.address]) as pool:
        assert pool.call("sum", 1) == 1
        in_child(lambda: pool.call("sum", 1, 2) == 3 or os._exit(2))
        assert pool.call("sum", 1) == 1
