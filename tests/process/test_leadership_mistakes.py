"""Stores that may not be used, that hold rubbish, and sections that change: each is told, and what can serve serves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from companies import Company, pids_of, told
from leaders import Clusters, leads, wait_leader
from zookeeper_servers import ZooKeeper, zookeeper

from rpccluster import Pool
from rpccluster.errors import CallError
from rpccluster.testing import RunningCluster, wait_until

MakeCluster = Callable[..., RunningCluster]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeper]:
    """One server for all tests of this module."""
    pytest.importorskip("kazoo", reason="the extra `zookeeper` is not installed")
    with zookeeper(tmp_path_factory.mktemp("zookeeper")) as running:
        yield running


@contextlib.contextmanager
def asking(server: ZooKeeper, *auth: tuple[str, str]) -> Iterator[Any]:
    """A client of ZooKeeper's."""
    from kazoo.client import KazooClient

    client = KazooClient(server.address, auth_data=list(auth))
    client.start(20)
    try:
        yield client
    finally:
        client.stop()
        client.close()


@contextlib.contextmanager
def company(folder: Path, store: str, count: int = 1, **options: Any) -> Iterator[Company]:
    """Clusters that are started, and need not lead."""
    made = Company(folder, store, count, **options)
    try:
        for cluster in made.clusters:
            cluster.start()
        yield made
    finally:
        made.stop()


def assert_serves_without_lead(cluster: RunningCluster) -> None:
    """What needs no lead is served, the rest is refused."""
    with cluster.client() as client:
        assert client.call("look") == [False, 0]
        with pytest.raises(CallError, match="none"):
            client.call("lead")


def test_a_path_that_others_guard_is_told(tmp_path: Path, server: ZooKeeper) -> None:
    """The cluster serves what needs no lead, and leads as soon as it may."""
    from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl

    with asking(server, ("digest", "owner:key")) as owner:
        owner.create(
            "/locked", b"", [make_digest_acl("owner", "key", all=True), make_acl("world", "anyone", read=True)]
        )
        with company(tmp_path, f"zookeeper://{server.address}/locked/shop") as made:
            cluster = made.clusters[0]
            cluster.wait_log("Cannot stand for the lead: this cluster may not use the nodes at")
            assert_serves_without_lead(cluster)
            owner.set_acls("/locked", OPEN_ACL_UNSAFE)
            made.leader()


def test_a_password_that_was_corrected_is_read_at_hup(tmp_path: Path, server: ZooKeeper) -> None:
    """Nothing else of the section has changed."""
    from kazoo.security import make_acl, make_digest_acl

    password = tmp_path / "password"
    password.write_text("owner:wrong\n")
    password.chmod(0o600)
    with asking(server, ("digest", "owner:key")) as owner:
        owner.create("/kept", b"", [make_digest_acl("owner", "key", all=True), make_acl("world", "anyone", read=True)])
        store = f"zookeeper://{server.address}/kept/shop"
        with company(tmp_path, store, lead_password_file=str(password)) as made:
            cluster = made.clusters[0]
            cluster.wait_log("found no permission, expected the password")
            password.write_text("owner:key\n")
            cluster.signal(signal.SIGHUP)
            made.leader()
            assert "key" not in cluster.log_text().replace("password_file", "")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may read, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="rpccluster-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@AS_ROOT
def test_a_folder_that_may_not_be_written_is_told(open_folder: Path) -> None:
    """The coordinator is the user that the configuration names, who need not be able to read Python's own files."""
    (open_folder / "leads").mkdir(mode=0o755)
    with company(open_folder, f"file:{open_folder}/leads/lead", user="nobody") as made:
        cluster = made.clusters[0]
        cluster.wait_log(f"Cannot stand for the lead: cannot use {open_folder}/leads/lead: Permission denied")
        assert_serves_without_lead(cluster)
        (open_folder / "leads").chmod(0o777)
        made.leader()


@AS_ROOT
def test_another_user_leads_in_zookeeper(open_folder: Path, server: ZooKeeper) -> None:
    """Who need not be able to read Python's own files, nor the password's."""
    password = open_folder / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    store = f"zookeeper://{server.address}/nobody"
    with company(open_folder, store, user="nobody", lead_password_file=str(password)) as made:
        made.leader()


def test_a_section_that_is_removed_gives_up_the_lead(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """At once, and the entry in the registry; when it is there again the cluster joins again."""
    clusters = Clusters(make_cluster, f"file:{tmp_path / 'lead'}", session_timeout=60)
    first, second = clusters.start("a"), clusters.make("b")
    wait_leader([first])
    second.start()
    registry = tmp_path / "lead.json"
    wait_until(lambda: len(clusters.members(registry)) == 2)
    section = first.sections["leadership"]
    first.write_section("leadership", None)
    assert first.run("reload").returncode == 0
    wait_until(lambda: leads(second), what="the other one leads")
    wait_until(lambda: clusters.members(registry) == [second.address])
    assert first.status()["master"]["leadership"] is None and not first.group("leadership")
    with first.client() as client:
        assert client.call("name") == "a"
    first.write_section("leadership", section)
    assert first.run("reload").returncode == 0
    wait_until(lambda: len(clusters.members(registry)) == 2)
    assert leads(second) and not leads(first)


def test_rubbish_in_zookeeper_is_skipped(tmp_path: Path, server: ZooKeeper) -> None:
    """Whoever has put it there neither leads nor keeps others from leading, and no client calls him."""
    with asking(server) as other:
        for name in ("members/a", "lead/a", "lead/n-0000000000", "lead/n-x"):
            other.create(f"/rubbish/{name}", b"\xff{", makepath=True)
        other.create("/rubbish/members/b", json.dumps({"addresses": ["gopher://x"]}).encode())
        with company(tmp_path, f"zookeeper://{server.address}/rubbish", 2) as made:
            cluster = made.leader()
            for each in made.clusters:
                wait_until(lambda each=each: told(each).get("leader") == cluster.address)  # type: ignore[misc]
            with Pool(f"zookeeper://{server.address}/rubbish", follow_leader=True) as pool:
                assert pool.call("lead", 5) == 5
            os.kill(pids_of(cluster, "leadership")[0], signal.SIGKILL)
            assert made.leader(besides=None) is cluster
