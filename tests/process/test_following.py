"""Clients that follow the lead of real clusters, while it goes from one to the other."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Callable

import pytest
from leaders import Clusters, kill_all, wait_leader

from rpccluster import Client, Pool
from rpccluster.errors import RPCClusterError
from rpccluster.testing import RunningCluster, wait_until

MakeCluster = Callable[..., RunningCluster]
RESIGNATIONS = 20 if os.environ.get("RPCCLUSTER_FULL_SCALE") else 4
LED = """
import os
from rpccluster import Service, leadership, rpc

class Shop(Service):
    @rpc(leader_only=True)
    def write(self):
        return [os.environ["NAME"], leadership.token]
"""


class Writers:
    """Threads that call the leader-only method, each by a client of its own."""

    def __init__(self, clients: list[Client | Pool]) -> None:
        self.answers: list[tuple[str, int]] = []
        self.failures: list[RPCClusterError] = []
        self.longest = 0.0
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(client,)) for client in clients]
        for thread in self._threads:
            thread.start()

    def _write(self, client: Client | Pool) -> None:
        with client:
            while not self._end.is_set():
                began = time.monotonic()
                try:
                    name, token = client.call("write")
                    self.answers.append((name, token))
                except RPCClusterError as error:
                    self.failures.append(error)
                self.longest = max(self.longest, time.monotonic() - began)

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(30)


@pytest.fixture
def pair(make_cluster: MakeCluster, tmp_path: Path) -> list[RunningCluster]:
    """Two clusters, the first of which leads."""
    clusters = Clusters(make_cluster, f"file:{tmp_path / 'lead'}")
    made = [clusters.make(name) for name in ("a", "b")]
    for cluster in made:
        cluster.write_module("shop", LED)
        cluster.start()
        wait_leader(made)
    return made


def test_resignations_cost_no_call(pair: list[RunningCluster]) -> None:
    """A client of either cluster, and a pool of both, have every call answered by the leader of that moment."""
    addresses = [cluster.address for cluster in pair]
    clients: list[Client | Pool] = [Client(address, follow_leader=True, timeout=20) for address in addresses]
    writers = Writers([*clients, Pool(addresses, follow_leader=True, timeout=20)])
    try:
        for _ in range(RESIGNATIONS):
            leader = wait_leader(pair)
            before = len(writers.answers)
            done = leader.run("leader", "resign")
            assert done.returncode == 0, done.stderr
            wait_until(lambda before=before: len(writers.answers) > before + 30)  # type: ignore[misc]
    finally:
        writers.end()
    tokens = {token for _, token in writers.answers}
    print(f"{len(writers.answers)} calls, {len(tokens)} leads; the longest call took {writers.longest:.3f} s")
    assert writers.failures == []
    assert len(tokens) == RESIGNATIONS + 1


def test_a_killed_leader_costs_what_it_had(pair: list[RunningCluster]) -> None:
    """A call of each client, or two where the next worker is killed a moment later; all others wait."""
    leader = wait_leader(pair)
    other = next(cluster for cluster in pair if cluster is not leader)
    pools: list[Client | Pool] = [Pool([each.address for each in pair], follow_leader=True, timeout=20) for _ in "ab"]
    writers = Writers(pools)
    try:
        wait_until(lambda: len(writers.answers) > 20)
        last = max(token for _, token in writers.answers)
        kill_all(leader)
        wait_until(lambda: any(token > last for _, token in writers.answers[-50:]), what="another one leads")
    finally:
        writers.end()
    assert len(writers.failures) <= 2 * len(pools), writers.failures
    assert writers.answers[-1][0] == ("a" if other is pair[0] else "b")
