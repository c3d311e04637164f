"""What runs where the lead is, and there alone: plugins, pools, and with ``scope = cluster`` the workers."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Callable

import pytest
from leaders import Clusters, kill_all, wait_leader

from rpccluster import Client, Pool
from rpccluster.errors import ConnectFailed
from rpccluster.testing import RunningCluster, wait_until

MakeCluster = Callable[..., RunningCluster]
SECTIONS: dict[str, dict[str, object]] = {
    "plugin:writer": {"command": "sleep 1000", "leader_only": "true"},
    "plugin:reader": {"command": "sleep 1000"},
    "plugin:late": {"command": "sleep 1000", "leader_only": "true", "after": "writer"},
    "pool:numbers": {"processes": 1, "spare": 0, "targets": "math:sqrt", "leader_only": "true"},
}
LED = ["plugin:writer", "plugin:late", "pool:numbers"]


@pytest.fixture
def clusters(make_cluster: MakeCluster, tmp_path: Path) -> Clusters:
    """Clusters whose store is a file."""
    return Clusters(make_cluster, f"file:{tmp_path / 'lead'}")


def states(cluster: RunningCluster) -> dict[str, tuple[str, str]]:
    """The state and reason of each group."""
    return {group["name"]: (group["state"], group["reason"]) for group in cluster.status()["groups"]}


def test_plugins_and_pools_run_where_the_lead_is(clusters: Clusters) -> None:
    """Started when it comes, stopped when it ends; elsewhere they wait, with the reason, and hold nobody up."""
    first = clusters.start("a", SECTIONS)
    wait_until(lambda: all(states(first)[name][0] == "ready" for name in LED))
    second = clusters.start("b", SECTIONS)
    second.wait_group("plugin:reader")
    assert {states(second)[name] for name in LED} == {("waiting", f"the lead is at {first.address}")}
    resigned = first.run("leader", "resign")
    assert resigned.returncode == 0, resigned.stderr
    wait_until(lambda: all(states(second)[name][0] == "ready" for name in LED))
    wait_until(lambda: {states(first)[name] for name in LED} == {("waiting", f"the lead is at {second.address}")})
    assert states(first)["plugin:reader"][0] == "ready"
    log = second.log_text()
    assert log.index("Plugin writer ready") < log.index("Booting plugin late")


def test_the_lead_ends_by_the_clock(clusters: Clusters, tmp_path: Path) -> None:
    """A store that fails says nothing any more: what needs the lead is stopped when the lease is over."""
    cluster = clusters.start("a", SECTIONS)
    wait_until(lambda: states(cluster)["plugin:writer"][0] == "ready")
    (tmp_path / "lead.900000000").write_text("rubbish")  # the latest version
    wait_until(lambda: {states(cluster)[name] for name in LED} == {("waiting", "nobody leads")})
    assert states(cluster)["plugin:reader"][0] == "ready"


def test_what_waits_for_the_lead_does_not_hold_up_a_change(clusters: Clusters) -> None:
    """A reload and an upgrade of a standby are done; what is no longer `leader_only` starts."""
    clusters.start("a", SECTIONS)
    second = clusters.start("b", SECTIONS)
    wait_until(lambda: states(second)["plugin:writer"][0] == "waiting")
    upgraded = second.run("upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    wait_until(lambda: states(second)["plugin:writer"][0] == "waiting")
    second.write_section("plugin:writer", {"command": "sleep 1000"})
    reloaded = second.run("reload")
    assert reloaded.returncode == 0, reloaded.stderr
    second.wait_group("plugin:writer")


# -- scope = cluster


@pytest.fixture
def whole(make_cluster: MakeCluster, tmp_path: Path) -> Clusters:
    """Clusters of which the leader alone serves."""
    return Clusters(make_cluster, f"file:{tmp_path / 'lead'}", scope="cluster")


def address_of(cluster: RunningCluster) -> str:
    return str(cluster.options["bind"])


def test_a_standby_keeps_its_listeners_closed(whole: Clusters) -> None:
    """Only the leader's workers run; whoever connects elsewhere is refused; a client of both never fails."""
    first = whole.start("a")
    second = whole.make("b")
    second.launch()
    wait_until(lambda: second.try_status() is not None and second.status()["master"]["state"] == "running")
    wait_until(lambda: states(second)["workers"] == ("waiting", f"the lead is at {address_of(first)}"))
    assert second.status()["master"]["listeners"] == []
    with Client(address_of(second)) as client, pytest.raises(ConnectFailed):
        client.call("name")
    with Pool([address_of(first), address_of(second)], follow_leader=True) as pool:
        assert pool.call("name") == "a"
        assert first.run("leader", "resign").returncode == 0
        names = [pool.call("name") for _ in range(20)]
        assert names[-1] == "b"
        wait_until(lambda: first.group("workers")["state"] == "waiting")
        with Client(address_of(first)) as client, pytest.raises(ConnectFailed):
            client.call("name")
        kill_all(second)
        assert pool.call("name", timeout=20, idempotent=True) == "a"
    assert first.run("reload").returncode == 0
    first.signal(signal.SIGTERM)
    assert first.wait() == 0


def test_the_leader_alone_is_listed(whole: Clusters, tmp_path: Path) -> None:
    """And it stays the leader, and serves, over reload and upgrade."""
    first = whole.start("a")
    second = whole.make("b")
    second.launch()
    registry = tmp_path / "lead.json"
    wait_until(lambda: whole.members(registry) == [address_of(first)])
    wait_until(lambda: second.try_status() is not None and second.status()["master"]["state"] == "running")
    for cluster in (second, first):
        for command in ("reload", "upgrade"):
            done = cluster.run(command)
            assert done.returncode == 0, (command, done.stderr, cluster.log_text())
    with Client(address_of(first)) as client:
        assert client.call("name") == "a"
    assert wait_leader([first, second]) is first
    wait_until(lambda: whole.members(registry) == [address_of(first)])
    with Client(address_of(second)) as client, pytest.raises(ConnectFailed):
        client.call("name")


def test_calls_that_run_when_the_lead_goes_are_answered(whole: Clusters) -> None:
    """What was read is answered where it runs; what was not read runs at the next leader."""
    first = whole.start("a")
    second = whole.make("b")
    second.launch()
    wait_until(lambda: second.try_status() is not None and second.status()["master"]["state"] == "running")
    with Pool([address_of(first), address_of(second)], follow_leader=True, timeout=20) as pool:
        slow = [pool.call_async("slow", 0.5) for _ in range(3)]
        wait_until((first.folder / "shop.py.runs").exists)
        assert first.run("leader", "resign").returncode == 0
        quick: list[Any] = [pool.call_async("name") for _ in range(50)]
        assert {future.result(20) for future in slow} == {"a"}
        assert {future.result(20) for future in quick} <= {"a", "b"}
