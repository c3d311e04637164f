"""What the control socket tells of the inside of workers: running calls, whose connections they have, their stacks."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rpccluster import RemoteError
from rpccluster.testing import RunningCluster, wait_until

SERVICE = """
import asyncio, os, time
from gevent.monkey import get_original
from rpccluster import rpc

sleep = get_original("time", "sleep")  # the patched one switches to a greenlet

def is_open():
    return os.path.exists(os.path.join(os.path.dirname(os.path.abspath(__file__)), "open"))

class Waiting:
    def in_greenlet(self):
        while not is_open(): time.sleep(0.01)  # waits

    @rpc(thread=True)
    def in_thread(self):
        while not is_open(): sleep(0.01)  # waits in a thread

    async def on_loop(self):
        while not is_open(): await asyncio.sleep(0.01)

    def compute(self):
        while not is_open(): pass
"""
METHODS = ("in_greenlet", "in_thread", "on_loop")


@pytest.fixture(params=["compiled", "python"])
def waiting(request: pytest.FixtureRequest, make_cluster: Any) -> RunningCluster:
    """A cluster of one worker, by each engine, whose methods wait for a file."""
    running: RunningCluster = make_cluster(service="waiting:Waiting", number_workers=1, engine=request.param)
    running.write_module("waiting", SERVICE)
    return running.start()


@contextlib.contextmanager
def called(running: RunningCluster, *methods: str) -> Iterator[None]:
    """Call each of ``methods`` on a connection of its own; let them return in the end."""

    def call(method: str) -> None:
        with running.client() as client:
            client.call(method)

    with ThreadPoolExecutor() as executor:
        calls = [executor.submit(call, method) for method in methods]
        try:
            yield
        finally:
            (running.folder / "open").touch()
        for call in calls:
            call.result(timeout=30)


def test_running_calls_with_their_age(waiting: RunningCluster) -> None:
    """Of every kind, the oldest first, with method and peer; and how many connections each host has."""
    with waiting.control() as control:
        [told] = control.call("worker.calls")
        assert (told["slot"], told["calls"], told["number_calls"], told["hosts"]) == (0, [], 0, [])
        with called(waiting, *METHODS):

            def aged() -> Any:
                [told] = control.call("worker.calls")
                is_aged = told["number_calls"] == 3 and all(seconds > 0.6 for _, _, seconds in told["calls"])
                return told if is_aged else None

            told = wait_until(aged, what="three calls that run for a while")
            assert sorted(method for method, _, _ in told["calls"]) == sorted(METHODS)
            assert all(peer.startswith("127.0.0.1:") for _, peer, _ in told["calls"])
            seconds = [each[2] for each in told["calls"]]
            assert seconds == sorted(seconds, reverse=True)
            assert (told["hosts"], told["number_hosts"]) == ([["127.0.0.1", 3]], 1)
        [told] = wait_until(lambda: [each for each in control.call("worker.calls") if not each["number_calls"]])
        assert told["calls"] == []


def test_a_stack_names_the_line_of_each_call(waiting: RunningCluster) -> None:
    """Of a greenlet, and of a thread; another pid is refused."""
    lines = dict(enumerate(SERVICE.splitlines(), 1))
    [in_greenlet] = [number for number, line in lines.items() if line.endswith("# waits")]
    [in_thread] = [number for number, line in lines.items() if line.endswith("# waits in a thread")]
    with waiting.control() as control, called(waiting, "in_greenlet", "in_thread"):
        pid = control.call("status")["workers"][0]["pid"]

        def stack() -> Any:
            told = control.call("worker.stack", pid)
            return told if all(f"waiting.py:{number} (" in told for number in (in_greenlet, in_thread)) else None

        told = wait_until(stack, what="the stack of both calls")
        assert "method in_greenlet for 127.0.0.1:" in told
        assert ", method in_thread:" in told
        with pytest.raises(RemoteError, match=r"^ArgumentError: found the pid 1, expected that of a worker"):
            control.call("worker.stack", 1)


def test_a_worker_that_does_not_answer_is_named(make_cluster: Any) -> None:
    """With what it has begun last; the others are told all the same."""
    running: RunningCluster = make_cluster(service="waiting:Waiting", number_workers=2)
    running.write_module("waiting", SERVICE)
    running.start()
    with running.control() as control, called(running, "compute"):

        def silent() -> Any:
            return [each for each in control.call("worker.calls") if "error" in each]

        [told] = wait_until(silent, what="a silent worker")
        assert told["error"] == f"the process {told['pid']} does not answer; it has begun compute last"
        with pytest.raises(RemoteError, match="does not answer; it has begun compute last"):
            control.call("worker.stack", told["pid"])
        other = next(each for each in control.call("status")["workers"] if each["pid"] != told["pid"])
        assert control.call("worker.stack", other["pid"])
    os.kill(other["pid"], signal.SIGSTOP)
    try:
        with running.control() as control:
            assert [each["slot"] for each in control.call("worker.calls") if "error" in each] == [other["slot"]]
    finally:
        os.kill(other["pid"], signal.SIGCONT)
