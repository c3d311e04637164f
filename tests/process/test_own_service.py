"""A service of the package's own, the dispatcher: a process beside the workers whose callers never notice its ends."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from rpccluster import Client
from rpccluster.address import parse_address
from rpccluster.client.sync.connection import Connection
from rpccluster.client.sync.wire import open_wire
from rpccluster.testing import RunningCluster, wait_until

MakeCluster = Callable[..., RunningCluster]

POOL = {"processes": 1, "targets": "math:sqrt"}


def pools(cluster: RunningCluster) -> dict[str, Any]:
    """The group of the dispatcher."""
    found: dict[str, Any] = next((each for each in cluster.status()["groups"] if each["name"] == "pools"), {})
    return found


def pid(cluster: RunningCluster, *others: int) -> int:
    """The pid of the dispatcher, which is ready and none of ``others``."""

    def ready() -> int:
        group = pools(cluster)
        found = [each["pid"] for each in group["processes"] if each["state"] == "ready"] if group else []
        return found[0] if found and found[0] not in others else 0

    return wait_until(ready)


@contextlib.contextmanager
def one_connection(address: str) -> Iterator[Callable[[], Any]]:
    """A function that calls over one connection, which is not replaced when it ends."""
    connection = Connection(open_wire(parse_address(address), time.monotonic() + 30.0), 1 << 20)
    try:
        yield lambda: connection.call("rpc.ping", [], time.monotonic(), time.monotonic() + 30.0)
    finally:
        connection.close("the test is over")


def test_it_is_there_as_long_as_there_is_a_pool(cluster: Callable[..., RunningCluster]) -> None:
    """A reload starts it with the first pool and stops it with the last, and no worker is touched."""
    running = cluster()
    workers = [each["pid"] for each in running.status()["workers"]]
    assert pools(running) == {}
    running.write_section("pool:a", POOL)
    assert running.run("reload").returncode == 0
    group = pools(running)
    assert (group["kind"], group["state"], group["wanted"]) == ("dispatcher", "ready", 1)
    with Client(group["listeners"][0]) as client:
        assert client.call("rpc.ping") == "pong"
    assert os.stat(group["listeners"][0].partition("://")[2]).st_mode & 0o777 == 0o600
    running.write_section("pool:a", None)
    assert running.run("reload").returncode == 0
    assert pools(running) == {}
    assert not os.path.exists(group["listeners"][0].partition("://")[2])
    assert [each["pid"] for each in running.status()["workers"]] == workers


def test_its_connections_are_held(make_cluster: MakeCluster) -> None:
    """While a successor boots, here and in a new master; after a kill a new connection is not refused."""
    running = make_cluster(sections={"pool:a": POOL}).start()
    first = pid(running)
    with one_connection(pools(running)["listeners"][0]) as ping:
        assert ping() == "pong"
        os.kill(first, signal.SIGTERM)
        second = pid(running, first)
        assert ping() == "pong"
        assert running.run("upgrade").returncode == 0
        third = pid(running, first, second)
        assert ping() == "pong"
    address = pools(running)["listeners"][0]
    os.kill(third, signal.SIGKILL)
    with Client(address) as client:
        assert client.call("rpc.ping") == "pong"
    assert pid(running, third)


def test_the_workers_wait_for_it_and_it_for_their_end(make_cluster: MakeCluster) -> None:
    """It is ready before they start, and stops after them."""
    running = make_cluster(sections={"pool:a": POOL}).start()
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    log = running.log_text()
    assert log.index("Dispatcher ready") < log.index("Booting worker")
    assert log.rindex("Worker exiting") < log.index("Retiring dispatcher") < log.index("Dispatcher exiting")
