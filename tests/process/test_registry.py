"""Clusters in a registry: listed while they serve, gone before they go, and pools that follow them."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Callable

import pytest
from leaders import Clusters, kill_all, leads
from patience import FULL_SCALE, within
from zookeeper_servers import zookeeper

from rpccluster import Pool
from rpccluster.errors import RPCClusterError
from rpccluster.testing import RunningCluster, wait_until

CALLS = 100_000 if FULL_SCALE else 2_000
CALL_PAUSE = 0.002  # between two calls of a thread, so that many clusters come and go meanwhile
SHARE_SECONDS = within(2.0)  # the bound is for a machine that does nothing else
MakeCluster = Callable[..., RunningCluster]


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "lead.json"


@pytest.fixture
def clusters(make_cluster: MakeCluster, tmp_path: Path) -> Clusters:
    """Clusters whose store is a file."""
    return Clusters(make_cluster, f"file:{tmp_path / 'lead'}")


def test_a_cluster_is_listed_while_it_serves(make_cluster: MakeCluster, tmp_path: Path, registry: Path) -> None:
    """From its first ready worker on; TERM removes the entry first, and acts ``drain_delay`` later."""
    delay = 0.3 if FULL_SCALE else 5.0  # there is time to ask it meanwhile
    clusters = Clusters(make_cluster, f"file:{tmp_path / 'lead'}", drain_delay=delay)
    first = clusters.start("first")
    address = first.address
    wait_until(lambda: clusters.members(registry) == [address])
    second = clusters.start("second")
    wait_until(lambda: clusters.members(registry) == sorted([address, second.address]))
    with first.client() as client:
        first.signal(signal.SIGTERM)
        wait_until(lambda: clusters.members(registry) == [second.address])
        assert client.call("name") == "first", "it serves on"
        assert first.status()["master"]["state"] == "departing"
    assert first.wait() == 0
    assert f"Leaving the registry: the stop acts in {delay:g} seconds" in first.log_text()


def test_the_entry_outlives_coordinator_and_master(clusters: Clusters, registry: Path) -> None:
    """A killed coordinator's successor goes on with it, and so does a new master; who drains is not listed."""
    cluster = clusters.start("first")
    wait_until(lambda: clusters.members(registry))
    entry = registry.read_text().split('"')[3]
    os.kill(cluster.group("leadership")["processes"][0]["pid"], signal.SIGKILL)
    wait_until(lambda: cluster.group("leadership")["processes"][0]["restarts"] == 1)
    cluster.wait_group("leadership")
    wait_until(lambda: entry in registry.read_text() and leads(cluster))
    assert cluster.run("upgrade").returncode == 0
    wait_until(lambda: len(clusters.members(registry)) == 1 and leads(cluster))
    cluster.signal(signal.SIGWINCH)
    wait_until(lambda: clusters.members(registry) == [])
    cluster.run("scale", "1")
    wait_until(lambda: len(clusters.members(registry)) == 1)


def test_a_killed_cluster_leaves_the_registry(clusters: Clusters, registry: Path) -> None:
    """When its session is over; nobody has removed its entry."""
    first, second = clusters.start("first"), clusters.start("second")
    wait_until(lambda: len(clusters.members(registry)) == 2)
    kill_all(first)
    address = second.address
    wait_until(lambda: clusters.members(registry) == [address])


class Callers:
    """Threads that call through one pool; they count which cluster has answered, and what has failed."""

    def __init__(self, pool: Pool, threads: int = 4) -> None:
        self.answers: Counter[str] = Counter()
        self.longest_share = 0.0  # seconds that a new cluster has waited for its share
        self.failures: list[RPCClusterError] = []
        self.threads = threads
        self._pool = pool
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        while not self._end.wait(CALL_PAUSE):
            try:
                self.answers[self._pool.call("name")] += 1
            except RPCClusterError as error:
                self.failures.append(error)

    @property
    def calls(self) -> int:
        return sum(self.answers.values()) + len(self.failures)

    def wait_share(self, name: str, members: int = 3) -> None:
        """Wait until a cluster answers at least half of its share of the calls of all ``members``; note how long."""
        started = time.monotonic()

        def has_share() -> bool:
            before, calls = self.answers[name], self.calls
            wait_until(lambda: self.calls > calls + 100)
            return self.answers[name] - before >= (self.calls - calls) / members / 2

        wait_until(has_share)
        self.longest_share = max(self.longest_share, time.monotonic() - started)

    def wait_more(self, calls: int) -> None:
        """Wait until so many more have ended."""
        before = self.calls
        wait_until(lambda: self.calls > before + calls)

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)


@pytest.mark.timeout(600 if FULL_SCALE else 300)
@pytest.mark.parametrize("engine", ["file", "zookeeper"])
def test_calls_while_clusters_come_and_go(engine: str, make_cluster: MakeCluster, tmp_path: Path) -> None:
    """None fails when a cluster is stopped; when one is killed only those that it had; a new one gets its share.

    While the registry is away nothing changes.
    """
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(zookeeper(tmp_path / "zookeeper")) if engine == "zookeeper" else None
        store = f"zookeeper://{server.address}/shop" if server else f"file:{tmp_path / 'lead'}"
        clusters = Clusters(make_cluster, store)
        first = [clusters.make(name).start(are_ready=False) for name in ("a", "b", "c")]
        for cluster in first:
            cluster.wait_ready()
        pool = stack.enter_context(Pool(clusters.registry, timeout=60))
        callers = Callers(pool)
        stack.callback(callers.end)
        for name in ("a", "b", "c"):
            callers.wait_share(name)
        _come_and_go(clusters, callers)
        if server:
            server.kill()
            callers.wait_more(500)
            server.start()
        else:
            (tmp_path / "lead.json").unlink()
        callers.wait_more(500)
        assert callers.failures == []


def _come_and_go(clusters: Clusters, callers: Callers) -> None:
    """Stop, kill or drain one cluster after another, while a new one starts, or the drained one again."""
    failed = 0
    for number, way in enumerate(itertools.cycle((_stop, _kill, _drain))):
        cluster = way(clusters, list(clusters.all)[number // 3 * 2 + number % 3], f"new{number}", callers)
        assert len(callers.failures) <= (callers.threads if way is _kill else 0), (way, callers.failures)
        failed += len(callers.failures)
        callers.failures.clear()
        callers.wait_share(cluster)
        assert callers.longest_share < SHARE_SECONDS
        if way is _drain and callers.calls >= CALLS:
            break
    print(
        f"{callers.calls} calls, {len(clusters.all)} clusters; failed when one was killed: {failed}; "
        f"a new one had its share after {callers.longest_share:.2f} seconds at most"
    )


def _stop(clusters: Clusters, leaving: str, new: str, callers: Callers) -> str:
    clusters.all[leaving].signal(signal.SIGTERM)
    assert clusters.all[leaving].wait() == 0
    assert callers.failures == []
    clusters.start(new)
    return new


def _kill(clusters: Clusters, leaving: str, new: str, callers: Callers) -> str:
    kill_all(clusters.all[leaving])
    callers.wait_more(500)
    clusters.start(new)
    return new


def _drain(clusters: Clusters, leaving: str, new: str, callers: Callers) -> str:
    """Who has come before the registry says so waits until there are workers again."""
    cluster = clusters.all[leaving]
    cluster.signal(signal.SIGWINCH)
    cluster.wait_log("The registry no longer lists the entry")
    callers.wait_more(200)
    assert cluster.run("scale", "1").returncode == 0
    return leaving
