"""Two clusters whose keepers share one Redis: as two hosts would, they have the same queues, whatever is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from keepers import Failed, Peer, address, keeper, peer, until_waiting
from redis_servers import RedisServer, redis_server

import rpccluster
from rpccluster.testing import RunningCluster, wait_until

pytest.importorskip("redis", reason="the extra `redis` is not installed")

MakeCluster = Callable[..., RunningCluster]
MakeHosts = Callable[..., tuple[RunningCluster, RunningCluster]]
FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
ITEMS = 5_000 if FULL_SCALE else 500  # of each producer
KILLS = 40 if FULL_SCALE else 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that loses nothing, with a password."""
    settings = {"appendonly": "yes", "appendfsync": "always", "requirepass": "a secret"}
    with redis_server(tmp_path / "redis", **settings) as server:
        yield server


@pytest.fixture
def hosts(server: RedisServer, tmp_path: Path, make_cluster: MakeCluster) -> MakeHosts:
    """Makes two clusters without workers, each with a keeper of the queue ``jobs``, which run."""
    password = tmp_path / "password"
    password.write_text("a secret\n")

    def make(**options: Any) -> tuple[RunningCluster, RunningCluster]:
        queues = {"engine": server.address, "password_file": str(password), "session_grace": 2, **options}
        sections = {"queues": queues, "queue:jobs": {"lease": 60, "max_attempts": 1000}}
        made = [make_cluster(sections=sections, number_workers=1) for _ in range(2)]
        for cluster in made:
            cluster.start()
        return made[0], made[1]

    return make


def test_a_get_that_waits_at_one_host_has_what_is_put_at_the_other(hosts: MakeHosts, server: RedisServer) -> None:
    """Any keeper takes the ack, tells the same numbers, and finds a repeat of the put."""
    here, there = hosts()
    with peer(here) as producer, peer(there) as consumer, peer(there) as other:
        waiting = consumer.begin("queue.get", "jobs", {})
        until_waiting(other, "jobs", 1)
        options = {"session": b"p" * 16, "seq": 1}
        id = producer.call("queue.put", "jobs", "x", options)
        assert consumer.end(waiting) == [[id, 1, "x"]]
        assert producer.call("queue.stats", "jobs")["leased"] == 1
        assert other.call("queue.put", "jobs", "x", options) == id
        joining = producer.begin("queue.join", "jobs")
        assert consumer.call("queue.ack", "jobs", [[id, 1]]) is True
        assert producer.end(joining) is True


def test_the_items_of_a_host_that_is_lost_go_on_at_the_other(hosts: MakeHosts) -> None:
    """Its master, keeper and consumers are gone at once; the attempt does not count."""
    lost, left = hosts()
    with peer(left) as one:
        id = one.call("queue.put", "jobs", "x")
        gone = Peer(address(lost).partition("://")[2])
        assert gone.call("queue.get", "jobs", {}) == [[id, 1, "x"]]
        waiting = one.begin("queue.get", "jobs", {})
        own = keeper(lost)
        os.kill(lost.master_pid, signal.SIGKILL)
        os.kill(own, signal.SIGKILL)
        assert one.end(waiting) == [[id, 2, "x"]]
        gone.close()


def test_while_redis_stands_still_every_call_is_told_so(hosts: MakeHosts, server: RedisServer) -> None:
    """Also one that waits, and in its time one that has little; then all goes on, unnoticed by a client of ours."""
    here, _ = hosts()
    patient = rpccluster.Queue(address(here), "jobs", timeout=60)
    with peer(here) as one, peer(here) as other:
        waiting = one.begin("queue.get", "jobs", {})
        until_waiting(other, "jobs", 1)
        server.pause()
        with pytest.raises(Failed, match="QueueDown: the store of the items does not answer"):
            other.call("queue.put", "jobs", "in a hurry", {"timeout": 0.3})
        put: list[Any] = []
        thread = threading.Thread(target=lambda: put.append(patient.put("patient")))
        thread.start()
        with pytest.raises(Failed, match="QueueDown: redis://"):
            one.end(waiting)
        with pytest.raises(Failed, match="QueueDown: redis://"):
            other.call("queue.put", "jobs", "x")
        server.resume()
        thread.join(60)
        values = wait_until(lambda: _values(other, "queue.peek", "jobs", 9))
        here.wait_log("cannot reach Redis")
        here.wait_log("Redis is there again")
        assert put and values.count("patient") == 1  # the other one had no number, and may be there
    patient.close()


def _values(peer: Peer, *call: Any) -> Any:
    try:
        return [value for _, _, value in peer.call(*call)]
    except Failed:
        return None


class Company:
    """Producers and consumers at two hosts, in threads, which count what was acknowledged to them."""

    def __init__(self, addresses: list[str], number: int) -> None:
        self.acked: Counter[Any] = Counter()
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._addresses = addresses
        self._number = number
        self.producers = [threading.Thread(target=self._run, args=(self._produce, n)) for n in range(4)]
        self.consumers = [threading.Thread(target=self._run, args=(self._consume, n)) for n in range(4)]
        self._is_over = threading.Event()

    def start(self) -> None:
        """Begin."""
        for thread in (*self.producers, *self.consumers):
            thread.start()

    def end(self, seconds: float) -> None:
        """Wait until the producers have put all, and the consumers have had all."""
        until = time.monotonic() + seconds
        for thread in self.producers:
            thread.join(max(0.1, until - time.monotonic()))
        wait_until(lambda: self.errors or len(self.acked) == 4 * self._number, max(1.0, until - time.monotonic()))
        self._is_over.set()
        for thread in self.consumers:
            thread.join(60)

    def _run(self, work: Callable[[rpccluster.Queue, int], None], number: int) -> None:
        try:
            with rpccluster.Queue(self._addresses[number % 2], "jobs", timeout=120) as queue:
                work(queue, number)
        except BaseException as error:
            self.errors.append(error)

    def _produce(self, queue: rpccluster.Queue, number: int) -> None:
        for n in range(0, self._number, 10):
            queue.put_many([[number, n + each] for each in range(10)])

    def _consume(self, queue: rpccluster.Queue, number: int) -> None:
        while not self._is_over.is_set():
            for item in queue.get_many(8, timeout=0.2):
                try:
                    item.ack()
                except rpccluster.LeaseLost:  # another consumer has it
                    continue
                with self._lock:
                    self.acked[tuple(item.value)] += 1


def test_no_item_is_lost_or_put_or_acked_twice_whatever_is_killed(hosts: MakeHosts, server: RedisServer) -> None:
    """Keepers, consumers that hold items, and Redis itself, under load."""
    both = hosts()
    company = Company([address(cluster) for cluster in both], ITEMS)
    company.start()
    for kill in range(KILLS):
        cluster = both[kill % 2]
        with peer(both[1 - kill % 2]) as dying:
            wait_until(lambda: _values(dying, "queue.get", "jobs", {"n": 5, "timeout": 1}) is not None)
            found = keeper(cluster)
            os.kill(found, signal.SIGKILL)
        keeper(cluster, found)
        if kill % 3 == 1:
            server.kill()
            server.start()
    company.end(1200 if FULL_SCALE else 120)
    assert not company.errors
    assert set(company.acked.values()) == {1}
    assert len(company.acked) == 4 * ITEMS
    with peer(both[0]) as one:
        stats = one.call("queue.stats", "jobs")
        assert (stats["ready"], stats["leased"], stats["delayed"], stats["dead"]) == (0, 0, 0, 0)


def test_a_keeper_that_has_waited_for_redis_logs_what_it_lacks(
    make_cluster: MakeCluster, server: RedisServer, tmp_path: Path
) -> None:
    """It is ready while Redis is away, says so, and serves when it comes; a wrong password is told, and no secret."""
    (tmp_path / "password").write_text("wrong\n")
    queues = {"engine": server.address, "password_file": str(tmp_path / "password")}
    cluster = make_cluster(sections={"queues": queues, "queue:jobs": {}}, number_workers=1)
    cluster.start()
    cluster.wait_log("cannot reach Redis")
    with peer(cluster) as one, pytest.raises(Failed, match="username-password"):
        one.call("queue.put", "jobs", "x")
    with server.client as client:
        client.config_set("appendfsync", "everysec")
    (tmp_path / "password").write_text("a secret\n")
    first = keeper(cluster)
    os.kill(first, signal.SIGTERM)
    keeper(cluster, first)
    cluster.wait_log("appendfsync everysec")
    with peer(cluster) as one:
        assert one.call("queue.put", "jobs", "x") == 1
    assert "a secret" not in cluster.log_text()
