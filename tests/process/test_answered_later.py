"""Calls that are answered later, in a real cluster: each is answered once, whatever becomes of its worker."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
import pytest
from patience import within
from worker_killed import WORKER_LOST, raises_worker_lost

from rpccluster import RemoteError
from rpccluster.address import TCPAddress, parse_address
from rpccluster.testing import RunningCluster, is_alive, wait_until

MAILBOX = """
import os
import random
import gevent
from gevent.monkey import get_original
import rpccluster

FOLDER = os.path.dirname(os.path.abspath(__file__))


class Mailbox(rpccluster.Service):
    def __init__(self):
        self.waiting = {}

    def worker_started(self, worker):
        gevent.spawn(self._deliver)

    def _deliver(self):
        while True:  # also when no connection is this worker's any more
            for name in list(self.waiting):
                if os.path.exists(os.path.join(FOLDER, name)):
                    random.shuffle(waiting := self.waiting.pop(name))
                    for number, later in waiting:
                        later.reply([os.getpid(), number])
            gevent.sleep(0.01)

    @rpccluster.rpc(later=True)
    def get(self, name, number):
        later = rpccluster.Later()
        self.waiting.setdefault(name, []).append((number, later))
        return later

    @rpccluster.rpc(later=True, timeout=0.3)
    def get_soon(self, name, number):
        return self.get(name, number)

    @rpccluster.rpc(later=True)
    def by_thread(self, number):
        later = rpccluster.Later()
        get_original("_thread", "start_new_thread")(later.reply, (number,))
        return later

    @rpccluster.rpc(later=True)
    def failed_by_thread(self, text):
        later = rpccluster.Later()
        get_original("_thread", "start_new_thread")(later.fail, (ValueError(text),))
        return later

    @rpccluster.rpc(later=True)
    def by_fork(self):
        later = rpccluster.Later()
        pid = os.fork()
        if not pid:
            later.reply("the child's")
            return later
        os.waitpid(pid, 0)
        gevent.spawn_later(0.05, later.reply, "the parent's")
        return later

    @rpccluster.rpc(later=True)
    def fork_beside(self, name):
        "A child knows nothing of the calls that wait."
        pid = os.fork()
        if not pid:
            os._exit(any(later.reply("the child's") for _, later in self.waiting[name]))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def pid(self):
        return os.getpid()
"""


@pytest.fixture
def mailbox(make_cluster: Any) -> Callable[..., RunningCluster]:
    """A cluster of mailboxes."""

    def start(**options: object) -> RunningCluster:
        running: RunningCluster = make_cluster(service="mailbox:Mailbox", **options)
        running.write_module("mailbox", MAILBOX)
        return running.start()

    return start


def deliver(running: RunningCluster, name: str) -> None:
    """Let every worker answer the calls that wait for ``name``."""
    (running.folder / name).touch()


@contextlib.contextmanager
def waiting(running: RunningCluster, pid: int, name: str, each: int = 30) -> Iterator[list[Any]]:
    """Some connections to the worker ``pid``, with parked calls on each; yields their futures."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(running.client_of(pid)) for _ in range(3)]
        futures = [client.call_async("get", name, number) for client in clients for number in range(each)]
        wait_until(lambda: running.worker(pid).get("active_calls") == len(futures), what="all wait")
        yield futures


def outcome(future: Any) -> Any:
    """The result, or the error's text."""
    try:
        return future.result(30)
    except RemoteError as error:
        return str(error)


def test_they_wait_beside_others_and_are_answered(mailbox: Any) -> None:
    """They hold no greenlet, count as calls that run, and stand in the access log once they are answered."""
    running = mailbox(number_workers=1, max_greenlets=2, access_log="on")
    (pid,) = running.worker_pids()
    with waiting(running, pid, "a") as futures, running.client() as client:
        assert client.call("pid") == pid
        assert "ms ok" in running.log_text()
        assert " get " not in running.log_text()
        deliver(running, "a")
        assert sorted(outcome(future) for future in futures) == sorted([pid, n] for n in range(30) for _ in range(3))
        assert client.call("by_thread", 7) == 7
        with pytest.raises(RemoteError, match=r"^ValueError: of a thread$"):
            client.call("failed_by_thread", "of a thread")
        wait_until(lambda: running.worker(pid)["active_calls"] == 0)
        row = running.worker(pid)
        assert (row["calls"] >= len(futures) + 3, row["errors"]) == (True, 1)
    assert running.log_text().count(" get ") == len(futures)
    assert "Method failed_by_thread failed for " in running.log_text()


def test_call_timeout_holds(mailbox: Any) -> None:
    """The error is that of any call; other calls of the connection go on."""
    running = mailbox(number_workers=1, access_log="on")
    with running.client() as client:
        with pytest.raises(RemoteError, match=r"^TimeoutError: the call took longer than 0\.3 seconds$"):
            client.call("get_soon", "never", 1)
        assert client.call("by_thread", 1) == 1
    running.wait_log(" get_soon ")
    assert "ms TimeoutError: the call took longer than 0.3 seconds" in running.log_text()
    wait_until(lambda: running.status()["workers"][0]["errors"] == 1)


def test_a_forked_child_answers_nobody(mailbox: Any) -> None:
    """Neither the call that forked nor those that wait beside it."""
    running = mailbox(number_workers=1)
    (pid,) = running.worker_pids()
    with waiting(running, pid, "a", each=2) as futures, running.client() as client:
        assert client.call("by_fork") == "the parent's"
        assert client.call("fork_beside", "a") == 0
        deliver(running, "a")
        assert all(outcome(future)[0] == pid for future in futures)


@pytest.mark.parametrize("way", ["reload", "scale", "upgrade"])
def test_they_outlive_the_move_of_their_connection(mailbox: Any, way: str) -> None:
    """The connection goes on in another worker at once; the old worker answers its calls, each once, and ends then."""
    running = mailbox(number_workers=2, graceful_timeout=30)
    leaver = running.worker_pids()[1]
    with waiting(running, leaver, "a") as futures, ThreadPoolExecutor(1) as pool:
        command = {"reload": ["reload", "--all"], "scale": ["scale", "1"], "upgrade": ["upgrade"]}[way]
        done = pool.submit(running.run, *command)
        wait_until(lambda: running.worker(leaver).get("connections", 0) == 0, what="all have moved")
        assert not any(future.done() for future in futures)
        assert is_alive(leaver)
        deliver(running, "a")
        assert sorted(outcome(future) for future in futures) == sorted([leaver, n] for n in range(30) for _ in range(3))
        assert done.result(60).returncode == 0
        wait_until(lambda: not is_alive(leaver), what="it ends")
    running.wait_ready()


def test_what_dies_with_their_worker_is_lost(mailbox: Any) -> None:
    """The callers are told by whoever has the connection: the one to which it has moved, before or by the kill."""
    running = mailbox(number_workers=2, graceful_timeout=30)
    leaver = running.worker_pids()[1]
    with waiting(running, leaver, "a") as futures:
        running.signal(signal.SIGTTOU)
        wait_until(lambda: running.worker(leaver).get("connections", 0) == 0, what="all have moved")
        os.kill(leaver, signal.SIGKILL)
        assert {outcome(future) for future in futures} == {WORKER_LOST}
    running.wait_ready(number_workers=1)
    (stayer,) = running.worker_pids()
    with waiting(running, stayer, "b", each=1) as futures:
        os.kill(stayer, signal.SIGKILL)
        for future in futures:
            with raises_worker_lost():
                future.result(30)


def test_at_the_end_of_graceful_timeout_they_are_answered(mailbox: Any) -> None:
    """Of a worker that retires, with the same error as a call that runs."""
    running = mailbox(number_workers=2, graceful_timeout=1)
    leaver = running.worker_pids()[1]
    with waiting(running, leaver, "a") as futures:
        running.signal(signal.SIGTTOU)
        assert {outcome(future) for future in futures} == {"WorkerRetired: its graceful_timeout is over"}
        wait_until(lambda: not is_alive(leaver), what="it ends")


def test_when_the_cluster_stops_they_are_answered(mailbox: Any) -> None:
    """Those in time with their answer, the rest with an error; then the cluster ends well."""
    running = mailbox(number_workers=1, graceful_timeout=5)
    (pid,) = running.worker_pids()
    with waiting(running, pid, "a", each=5) as in_time, waiting_beside(running, pid, "never") as late:
        running.signal(signal.SIGTERM)
        running.wait_log("Worker retiring")
        deliver(running, "a")
        assert all(outcome(future)[0] == pid for future in in_time)
        assert outcome(late) == "WorkerRetired: its graceful_timeout is over"
    assert running.wait() == 0


@contextlib.contextmanager
def waiting_beside(running: RunningCluster, pid: int, name: str) -> Iterator[Any]:
    """One more parked call."""
    before = running.worker(pid)["active_calls"]
    with running.client() as client:
        future = client.call_async("get", name, 0)
        wait_until(lambda: running.worker(pid)["active_calls"] == before + 1)
        yield future


COUNT = 20_000


@pytest.mark.parametrize("connections", [1, 100])
def test_many_move_together(mailbox: Any, connections: int) -> None:
    """Others are served meanwhile; each is answered once, in whatever order."""
    running = mailbox(number_workers=1, max_pending_calls=COUNT, graceful_timeout=60)
    (leaver,) = running.worker_pids()
    with contextlib.ExitStack() as stack, running.client() as other:
        clients = [stack.enter_context(running.client(timeout=60)) for _ in range(connections)]
        futures = [clients[number % connections].call_async("get", "a", number) for number in range(COUNT)]
        wait_until(lambda: running.worker(leaver)["active_calls"] == COUNT, what="all wait")
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(running.run, "reload", "--all")
            wait_until(lambda: running.worker(leaver).get("connections", 0) == 0, what="it has moved")
            slowest = 0.0
            deliver(running, "a")
            while not all(future.done() for future in futures):
                began = time.monotonic()
                assert other.call("pid") != leaver
                slowest = max(slowest, time.monotonic() - began)
            assert done.result(60).returncode == 0
        assert [future.result() for future in futures] == [[leaver, number] for number in range(COUNT)]
    assert slowest < within(5)


def test_a_client_that_breaks_off_leaves_none(mailbox: Any) -> None:
    """Its calls are over with its connection, and their replies count as dropped."""
    running = mailbox(number_workers=1)
    (pid,) = running.worker_pids()
    address = parse_address(running.address)
    assert isinstance(address, TCPAddress)
    with socket.create_connection((address.host, address.port)) as client:
        for number in range(50):
            client.sendall(msgpack.packb([0, number, "get", ["a", number]]))
        wait_until(lambda: running.worker(pid)["active_calls"] == 50)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
    wait_until(lambda: running.worker(pid)["active_calls"] == 0)
    wait_until(lambda: running.worker(pid).get("dropped_replies") == 50)
