"""What a store on other machines can do to a leader: be restarted, be cut off, say nothing, be away at the start."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kazoo", reason="the extra `zookeeper` is not installed")

from companies import Callers, Company, pids_of, told
from programs import free_port
from zookeeper_servers import Ensemble, ZooKeeper, ensemble, zookeeper

from rpccluster.testing import RunningCluster, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
RESTARTS = 20 if FULL_SCALE else 1
PARTITIONS = 50 if FULL_SCALE else 2
SESSION_SECONDS = 6.0  # a server of Java's takes a second or two to start

_paths = itertools.count(1)


class Relay:
    """Passes bytes between a cluster and its server, until it is told to hold them all, without a word to either."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._passes = threading.Event()
        self._passes.set()
        self.holds_new = True  # a new connection is held, too, while others are
        self._is_over = False
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, new_too: bool = True) -> None:
        """Hold every byte, in both directions."""
        self.holds_new = new_too
        self._passes.clear()

    def heal(self) -> None:
        """Pass bytes again; connections that were held are over, as after a long partition."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()
        self._passes.set()

    def close(self) -> None:
        self._is_over = True
        self._listener.close()
        self.heal()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        is_new = not self._passes.is_set()
        if is_new and self.holds_new:
            self._passes.wait()
        with contextlib.suppress(OSError):
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other, is_new), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, is_new: bool) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if not (is_new and not self.holds_new):
                    self._passes.wait()
                other.sendall(data)
        for sock in (one, other):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeper]:
    """One server for all tests of this module."""
    with zookeeper(tmp_path_factory.mktemp("zookeeper")) as running:
        yield running


@pytest.fixture
def relays() -> Iterator[list[Relay]]:
    """The relays of a test."""
    made: list[Relay] = []
    yield made
    for relay in made:
        relay.close()


@contextlib.contextmanager
def company(folder: Path, addresses: str | list[str], session: float = SESSION_SECONDS) -> Iterator[Company]:
    """Two clusters, each at its own addresses of one store."""
    path = f"/alone/{next(_paths)}"
    each = addresses if isinstance(addresses, list) else [addresses] * 2
    made = Company(folder, f"zookeeper://{each[0]}{path}", len(each), lead_session_timeout=session)
    for cluster, address in zip(made.clusters, each):
        cluster.write_section(
            "leadership", {**cluster.sections["leadership"], "engine": f"zookeeper://{address}{path}"}
        )
    try:
        yield made.start()
    finally:
        made.stop()


def renews(company: Company, cluster: RunningCluster) -> bool:
    """Whether the cluster still leads, by a call of its own."""
    with cluster.client(5) as client:
        return bool(client.call("look")[0])


@pytest.mark.timeout(900 if FULL_SCALE else 120)
def test_a_server_that_is_restarted_within_the_session_changes_no_leader(tmp_path: Path, server: ZooKeeper) -> None:
    """Again and again."""
    with company(tmp_path, server.address) as clusters:
        cluster, token = clusters.leader(), clusters.token()
        for _ in range(RESTARTS):
            server.kill()
            server.start()
            wait_until(lambda: told(cluster).get("is_leader"), what="it leads on")
        assert clusters.leader() is cluster and clusters.token() == token


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Ensemble]:
    """Three servers."""
    with ensemble(tmp_path / "servers") as running:
        yield running


@pytest.mark.timeout(900 if FULL_SCALE else 120)
def test_a_rolling_restart_of_three_servers_changes_no_leader(tmp_path: Path, three: Ensemble) -> None:
    """Nor does the end of one of them."""
    with company(tmp_path, three.address) as clusters:
        cluster, token = clusters.leader(), clusters.token()
        for number in range(3 * RESTARTS):
            server = three.servers[number % 3]
            server.kill()
            wait_until(lambda: told(cluster).get("is_leader"), what="it leads on with two")
            server.start()
            wait_until(lambda: told(cluster).get("is_leader"), what="it leads on with three")
        assert clusters.leader() is cluster and clusters.token() == token


@pytest.mark.timeout(900 if FULL_SCALE else 120)
def test_a_leader_that_is_cut_off_ends_before_another_one_begins(
    tmp_path: Path, server: ZooKeeper, relays: list[Relay]
) -> None:
    """By the clock, each time; and tokens only grow."""
    relays += [Relay(server.address), Relay(server.address)]
    with company(tmp_path, [relay.address for relay in relays], session=2.0) as clusters, Callers(clusters) as callers:
        for _ in range(PARTITIONS):
            cluster, token = clusters.leader(), clusters.token()
            relay = relays[clusters.clusters.index(cluster)]
            relay.cut()
            other = clusters.leader(besides=cluster)
            assert not renews(clusters, cluster), "two lead"
            assert told(other)["token"] > token
            relay.heal()
            await_leader_at(cluster, other.address)
        callers_leads = callers.check()["leads"]
    assert callers_leads == PARTITIONS + 1


def await_leader_at(cluster: RunningCluster, address: str) -> None:
    """Wait until a cluster knows that the lead is there."""
    wait_until(lambda: told(cluster).get("leader") == address, what="it knows the new leader")


def test_a_connection_that_says_nothing_costs_the_coordinator_and_not_the_lead(
    tmp_path: Path, server: ZooKeeper, relays: list[Relay]
) -> None:
    """The client library waits for an answer; another coordinator goes on with the session, over a new connection."""
    relays.append(Relay(server.address))
    with company(tmp_path, [relays[0].address]) as clusters, Callers(clusters) as callers:
        cluster, token = clusters.leader(), clusters.token()
        before = cluster.status()
        coordinator = pids_of(cluster, "leadership")[0]
        relays[0].cut(new_too=False)
        wait_until(lambda: [pid for pid in pids_of(cluster, "leadership") if pid != coordinator], what="another one")
        seen = len(callers.replies)
        wait_until(lambda: len(callers.replies) > seen + 50, what="calls go on")
        wait_until(lambda: told(cluster)["is_leader"], what="it leads")
        after = cluster.status()
        assert clusters.token() == token and callers.errors == {}
        assert [each["pid"] for each in after["workers"]] == [each["pid"] for each in before["workers"]]
        assert after["master"]["pid"] == before["master"]["pid"]


def test_without_a_server_at_the_start_it_serves_and_joins_later(tmp_path: Path) -> None:
    """What needs no lead; the log says so."""
    server = ZooKeeper(tmp_path / "server", free_port())
    made = Company(tmp_path, f"zookeeper://{server.address}/later", 1)
    cluster = made.clusters[0]
    try:
        cluster.start()
        with cluster.client() as client:
            assert client.call("look") == [False, 0]
            with pytest.raises(Exception, match="none"):
                client.call("lead")
            cluster.wait_log(f"Cannot stand for the lead: cannot reach zookeeper://{server.address}/later")
            server.start()
            assert made.leader() is cluster
            assert client.call("lead", 1) == 1
        cluster.wait_log("Reached the store")
    finally:
        made.stop()
        server.kill()


def test_a_session_that_is_not_granted_and_a_wrong_password_are_told(tmp_path: Path, server: ZooKeeper) -> None:
    """With what was granted, and what is missing; the right password is there beside it, and leads."""
    from rpccluster.leading.address import StoreAddress
    from rpccluster.leading.zookeeper_store import ZooKeeperStore

    path = f"zookeeper://{server.address}/guarded"
    owner = ZooKeeperStore(StoreAddress.parse(path), 10, ["unix:///owner"], password="right")
    wait_until(lambda: _attends(owner), what="the owner leads")
    password = tmp_path / "password"
    password.write_text("wrong\n")
    password.chmod(0o600)
    made = Company(tmp_path, path, 1, lead_password_file=str(password), lead_session_timeout=100)
    cluster = made.clusters[0]
    try:
        cluster.start()
        cluster.wait_log("found no permission, expected the password with which they were made (password_file)")
        password.write_text("right\n")
        cluster.signal(signal.SIGHUP)
        cluster.wait_log("The lead is at unix:///owner")
        cluster.wait_log("does not grant the session_timeout of 100 seconds: a session has 60")
        assert told(cluster)["session_timeout"] == 60
    finally:
        made.stop()
        owner.leave()


def _attends(store: Any) -> bool:
    with contextlib.suppress(Exception):
        return bool(store.attend().is_ours)
    return False


def test_two_clusters_that_advertise_one_address_are_told(tmp_path: Path, server: ZooKeeper) -> None:
    """Nobody could tell them apart."""
    made = Company(tmp_path, f"zookeeper://{server.address}/twins", 2, lead_advertise="tcp://twin.example:1")
    try:
        made.start()
        other = next(each for each in made.clusters if not told(each)["is_leader"])
        other.wait_log("Another cluster leads and advertises tcp://twin.example:1, as this one does")
    finally:
        made.stop()
