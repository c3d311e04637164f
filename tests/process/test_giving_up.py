"""graceful_timeout is over: every call that still runs or waits is answered, whatever other clients have done."""

from __future__ import annotations

import signal
import socket
import struct
from typing import Any

import msgpack
import pytest

from rpccluster.address import parse_address
from rpccluster.testing import RunningCluster, wait_until

SLEEP = msgpack.packb([0, 1, "sleep", [30]])
WORDS = "WorkerRetired: the worker's graceful_timeout is over"


def _connect(running: RunningCluster, data: bytes) -> socket.socket:
    address = parse_address(running.address)
    sock = socket.create_connection((address.host, address.port), timeout=10)
    sock.sendall(data)
    return sock


def _wait_worker(running: RunningCluster, **facts: int) -> None:
    def is_so() -> bool:
        (worker,) = running.status()["workers"]
        return all(worker[key] == value for key, value in facts.items())

    wait_until(is_so, 5, str(facts))


def _reply(sock: socket.socket) -> list[Any]:
    with sock:
        return msgpack.unpackb(sock.recv(1000))


def test_a_call_that_runs_and_one_that_waits_are_answered(cluster):
    """Both callers get `WorkerRetired` although a third's bytes, which nobody has looked at yet, are no message."""
    running = cluster(number_workers=1, graceful_timeout=0.5, max_greenlets=1)
    runs = _connect(running, SLEEP)
    _wait_worker(running, active_calls=1)
    waits = _connect(running, msgpack.packb([0, 2, "sum", [1, 2]]))
    _wait_worker(running, connections=2)
    bad = _connect(running, msgpack.packb(5) + msgpack.packb([0, 3, "sum", []]))
    _wait_worker(running, connections=3)
    running.signal(signal.SIGTERM)
    assert _reply(runs) == [1, 1, WORDS, None]
    assert _reply(waits) == [1, 2, WORDS, None]
    bad.close()
    assert running.wait() == 0
    assert "Traceback" not in running.log_text()
    assert "Killing worker" not in running.log_text()


@pytest.mark.parametrize("is_reset", [True, False])
def test_beside_a_call_whose_client_is_gone(cluster, is_reset):
    """A client that went while its call runs takes nobody along: the others are answered, the worker ends by itself."""
    running = cluster(number_workers=1, graceful_timeout=0.5)
    stays, goes = _connect(running, SLEEP), _connect(running, SLEEP)
    _wait_worker(running, active_calls=2)
    if is_reset:
        goes.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    goes.close()
    _wait_worker(running, connections=1 if is_reset else 2)
    running.signal(signal.SIGTERM)
    assert _reply(stays) == [1, 1, WORDS, None]
    assert running.wait() == 0
    assert "Fatal Python error" not in running.log_text()
    assert "Killing worker" not in running.log_text()
