"""A real cluster serves real clients."""

from __future__ import annotations

import os
import signal

import pytest
from patience import within

from rpccluster import ArgumentError, NoMethodError, RemoteError
from rpccluster.testing import is_alive, wait_until


def test_it_serves_and_stops_gracefully(cluster):
    """Calls are answered; TERM ends the master with 0 and every worker with it."""
    running = cluster(number_workers=2)
    pids = running.worker_pids()
    with running.client() as client:
        assert client.call("sum", 1, 2) == 3
        assert client.call("echo", {"a": [1, b"x", None]}) == {"a": [1, b"x", None]}
        assert client.call("pid") in pids
        client.notify("sum", 1)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert not any(is_alive(pid) for pid in pids)


def test_errors_cross_the_wire_as_the_contract_words_them(cluster):
    """Each kind of failure has its own error, and the connection lives on."""
    running = cluster(number_workers=1)
    with running.client() as client:
        with pytest.raises(RemoteError, match=r"^RuntimeError: boom$"):
            client.call("fail", "boom")
        with pytest.raises(NoMethodError) as raised:
            client.call("nope")
        assert raised.value.message == "'nope' method not found"
        with pytest.raises(NoMethodError, match="'_private' method not found"):
            client.call("_private")
        with pytest.raises(NoMethodError, match="'worker_started' method not found"):
            client.call("worker_started", None)
        with pytest.raises(ArgumentError):
            client.call("sleep")
        assert client.call("rpc.ping") == "pong"
        assert client.call("rpc.discover")["sum"]["doc"] == "Add numbers."
    wait_until(lambda: "Method fail failed for 127.0.0.1" in running.log_text())


def test_killed_master_takes_its_workers_along(cluster):
    """Promise 3: after a kill -9 of the master the workers are gone within a second, and a start succeeds."""
    running = cluster(number_workers=3)
    pids = running.worker_pids()
    os.kill(running.master_pid, signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in pids), within(1.0))
    running.wait()
    assert running.start().worker_pids()
