"""A registry that is not there, or not as it should be: what needs none of it serves, and it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest
from leaders import Clusters
from programs import free_port
from zookeeper_servers import ZooKeeper, needs_zookeeper

from rpccluster import Pool
from rpccluster.errors import ConnectFailed
from rpccluster.testing import RunningCluster, wait_until

MakeCluster = Callable[..., RunningCluster]


def test_zookeeper_comes_later(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """The cluster serves without it, says so, and is listed when it comes."""
    needs_zookeeper()
    server = ZooKeeper(tmp_path / "zookeeper", free_port())
    clusters = Clusters(make_cluster, f"zookeeper://{server.address}/shop")
    cluster = clusters.start("a")
    with cluster.client() as client:
        assert client.call("name") == "a"
    cluster.wait_log("Cannot stand for the lead")
    with Pool(clusters.registry, timeout=0.5) as pool, pytest.raises(ConnectFailed):
        pool.call("name")
    try:
        server.start()
        with Pool(clusters.registry, timeout=30) as pool:
            assert pool.call("name") == "a"
        cluster.wait_log("The registry lists this cluster")
    finally:
        server.kill()


def test_two_clusters_with_one_address(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """The second one is told so in its log, and serves."""
    clusters = Clusters(make_cluster, f"file:{tmp_path / 'lead'}", advertise="tcp://10.1.2.3:4")
    clusters.start("a")
    registry = tmp_path / "lead.json"
    wait_until(lambda: clusters.members(registry) == ["tcp://10.1.2.3:4"])
    second = clusters.start("b")
    second.wait_log("The registry lists tcp://10.1.2.3:4 for another cluster, too")
    assert len(clusters.members(registry)) == 2


def test_rubbish_in_the_file_is_replaced(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """Each cluster writes its own entry again, within a session."""
    clusters = Clusters(make_cluster, f"file:{tmp_path / 'lead'}")
    cluster = clusters.start("a")
    registry, address = tmp_path / "lead.json", cluster.address
    wait_until(lambda: clusters.members(registry) == [address])
    registry.write_text("{")
    wait_until(lambda: clusters.members(registry) == [address])
    registry.unlink()
    wait_until(lambda: clusters.members(registry) == [address])
