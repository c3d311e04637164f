"""graceful_timeout is over: calls that still run are answered `WorkerRetired`, connections live on."""

from __future__ import annotations

import signal
import socket
import struct
import time
from typing import Any

import msgpack
import pytest

from rpccluster.address import parse_address
from rpccluster.testing import RunningCluster, wait_until

WORDS = "WorkerRetired: its graceful_timeout is over"


class Caller:
    """One connection, whose calls are written as they are."""

    def __init__(self, running: RunningCluster, data: bytes = b"") -> None:
        address = parse_address(running.address)
        self.socket = socket.create_connection((address.host, address.port), timeout=20)
        self.unpacker = msgpack.Unpacker()
        self.socket.sendall(data)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send(self, msgid: int, method: str, *params: Any) -> None:
        self.socket.sendall(msgpack.packb([0, msgid, method, params]))

    def reply(self) -> list[Any]:
        while True:
            for message in self.unpacker:
                return message
            data = self.socket.recv(1000)
            assert data, "the connection was ended"
            self.unpacker.feed(data)

    def call(self, msgid: int, method: str, *params: Any) -> Any:
        self.send(msgid, method, *params)
        kind, answered, error, result = self.reply()
        assert (kind, answered, error) == (1, msgid, None)
        return result


def _wait_worker(running: RunningCluster, **facts: int) -> None:
    def is_so() -> bool:
        return any(all(worker[key] == value for key, value in facts.items()) for worker in running.status()["workers"])

    wait_until(is_so, what=str(facts))


def test_a_call_is_given_up_and_its_connection_goes_on(cluster):
    """HUP: a call that runs longer than graceful_timeout gets its error, the next one the new worker."""
    running = cluster(number_workers=1, graceful_timeout=1)
    with Caller(running) as caller:
        (old,) = running.worker_pids()
        assert caller.call(1, "pid") == old
        caller.send(2, "sleep", 30)
        _wait_worker(running, active_calls=1)
        running.signal(signal.SIGHUP)
        assert caller.reply() == [1, 2, WORDS, None]
        new = caller.call(3, "pid")
        assert new != old
        assert running.wait_ready()["workers"][0]["pid"] == new
        assert caller.call(4, "sum", 1, 2) == 3
    assert "Killing worker" not in running.log_text()


STUBBORN = """
import time

class Stubborn:
    def never_mind(self):
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass

    def clean_up(self):
        try:
            time.sleep(60)
        finally:
            time.sleep(0.05)
            with open("cleaned", "w"):
                pass
"""


def test_whoever_goes_on_in_spite_of_it_holds_up_no_stop(make_cluster):
    """A second later its caller is answered, and the worker ends by itself; others have had their time to clean up."""
    running = make_cluster(
        service="stubborn:Stubborn", number_workers=1, graceful_timeout=0.3, access_log="access.log", chdir="."
    )
    running.write_module("stubborn", STUBBORN)
    running.start()
    with Caller(running) as caller:
        caller.send(1, "never_mind")
        caller.send(2, "clean_up")
        _wait_worker(running, active_calls=2)
        running.signal(signal.SIGTERM)
        assert sorted([caller.reply(), caller.reply()]) == [[1, 1, WORDS, None], [1, 2, WORDS, None]]
    assert running.wait() == 0
    assert (running.folder / "cleaned").exists()
    text = running.log_text()
    assert "Method never_mind goes on after its interruption; its result will be dropped" in text
    assert "Worker exiting" in text
    assert "Killing" not in text


def test_calls_that_wait_are_not_given_up_with_those_that_run(cluster):
    """They have not begun: they go with their connection, and the new worker answers them, without waiting."""
    running = cluster(number_workers=1, graceful_timeout=1, max_greenlets=1)
    with Caller(running) as runs, Caller(running) as waits:
        runs.send(1, "sleep", 30)
        _wait_worker(running, active_calls=1)
        waits.send(2, "pid")
        _wait_worker(running, connections=2)
        (old,) = running.worker_pids()
        running.signal(signal.SIGHUP)
        kind, msgid, error, pid = waits.reply()
        assert (kind, msgid, error) == (1, 2, None)
        assert pid != old
        assert runs.reply() == [1, 1, WORDS, None]
        assert runs.call(3, "pid") == pid


def test_a_stop_answers_what_runs_and_what_waits(cluster):
    """The whole cluster ends: all are answered, although another's bytes, not looked at yet, are no message."""
    running = cluster(number_workers=1, graceful_timeout=0.5, max_greenlets=1)
    with Caller(running) as runs, Caller(running) as waits, Caller(running) as waits_too:
        runs.send(1, "sleep", 30)
        _wait_worker(running, active_calls=1)
        waits.send(2, "sleep", 30)
        waits_too.send(3, "sum", 1, 2)
        with Caller(running, msgpack.packb(5) + msgpack.packb([0, 3, "sum", []])):
            _wait_worker(running, connections=4)
            running.signal(signal.SIGTERM)
            assert runs.reply() == [1, 1, WORDS, None]
            assert waits.reply() == [1, 2, WORDS, None]
            assert waits_too.reply() == [1, 3, None, 3]
        assert running.wait() == 0
    assert "Killing worker" not in running.log_text()


@pytest.mark.parametrize("is_reset", [True, False])
def test_beside_a_call_whose_client_is_gone(cluster, is_reset):
    """A client that went while its call runs takes nobody along: the others are answered, the worker ends by itself."""
    running = cluster(number_workers=1, graceful_timeout=0.5)
    with Caller(running) as stays, Caller(running) as goes:
        for caller in (stays, goes):
            caller.send(1, "sleep", 30)
        _wait_worker(running, active_calls=2)
        if is_reset:
            goes.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        goes.socket.close()
        _wait_worker(running, connections=1 if is_reset else 2)
        running.signal(signal.SIGTERM)
        assert stays.reply() == [1, 1, WORDS, None]
        assert running.wait() == 0
    assert "Fatal Python error" not in running.log_text()
    assert "Killing worker" not in running.log_text()


def test_what_nobody_can_take_is_served_on(cluster):
    """A retiring worker keeps a connection as long as all others are full, past every time limit; then it moves."""
    running = cluster(number_workers=2, graceful_timeout=0.2, worker_connections=1)
    with Caller(running) as one, Caller(running) as other:
        pids = {status["slot"]: status["pid"] for status in running.status()["workers"]}
        by_pid = {caller.call(1, "pid"): caller for caller in (one, other)}
        stays, leaves = by_pid[pids[0]], by_pid[pids[1]]
        leaves.send(2, "sleep", 30)
        _wait_worker(running, slot=1, active_calls=1)
        running.signal(signal.SIGTTOU)
        assert leaves.reply() == [1, 2, WORDS, None]
        killed_otherwise_at = time.monotonic() + 4
        while time.monotonic() < killed_otherwise_at:
            assert leaves.call(3, "pid") == pids[1]
        assert running.worker(pids[1])["state"] == "retiring"
        stays.socket.close()
        wait_until(lambda: leaves.call(4, "pid") == pids[0], what="it has moved")
        running.wait_ready()
    assert "Killing worker" not in running.log_text()
