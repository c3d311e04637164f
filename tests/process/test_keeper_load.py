"""The keeper while it works: replaced, reloaded and upgraded under load, fair to its consumers, quiet without any."""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from keepers import Peer, address, keeper, peer, until_waiting
from patience import within

from rpccluster import Queue
from rpccluster.testing import RunningCluster, wait_until

MakeCluster = Callable[..., RunningCluster]
IS_FULL = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
CHANGES = 10 if IS_FULL else 1
CONSUMERS, ITEMS, SHARE = (100, 100_000, 0.2) if IS_FULL else (20, 2000, 0.3)
LEASES, LATE_SECONDS = (10_000, 0.05) if IS_FULL else (1000, 30.0)
HIGH = 500 if IS_FULL else 20
QUIET_SECONDS = 60.0 if IS_FULL else 2.0


def test_changes_under_load(make_cluster: MakeCluster) -> None:
    """Reloads, upgrades and replacements of the keeper: no call fails, nothing is put or given twice."""
    cluster = make_cluster(sections={"queue:jobs": {}, "queues": {"durable": "os"}}).start()
    at = address(cluster)
    put: list[list[Any]] = [[], []]
    got: list[list[Any]] = [[], []]
    failed: list[BaseException] = []
    is_over = threading.Event()

    def produce(number: int) -> None:
        with Queue(at, "jobs") as queue:
            while not is_over.is_set():
                put[number].append(queue.put(len(put[number])))

    def consume(number: int) -> None:
        with Queue(at, "jobs") as queue:
            while not is_over.is_set() or queue.stats()["ready"]:
                item = queue.get(timeout=1.0)
                if item is not None:
                    got[number].append((item.id, item.attempt))
                    item.ack()

    def watched(do: Callable[[int], None], number: int) -> None:
        try:
            do(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=watched, args=(do, number)) for do in (produce, consume) for number in (0, 1)]
    for thread in threads:
        thread.start()
    last = keeper(cluster)
    try:
        for number in range(CHANGES):
            os.kill(last, signal.SIGTERM)
            last = keeper(cluster, last)
            cluster.write_section("queue:jobs", {"lease": 30 + number})
            assert cluster.run("reload").returncode == 0
            cluster.write_section("queues", {"durable": ("second", "os")[number % 2]})
            assert cluster.run("reload").returncode == 0
            last = keeper(cluster, last)
            assert cluster.run("upgrade").returncode == 0
            last = keeper(cluster, last)
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60.0)
    assert failed == []
    given = Counter(got[0] + got[1])
    assert {attempt for _, attempt in given} == {1}
    assert sorted(given.elements()) == sorted((id_, 1) for ids in put for id_ in ids)


def test_waiting_consumers_get_their_share(make_cluster: MakeCluster) -> None:
    """Each of many gets as many items as any other."""
    cluster = make_cluster(sections={"queue:jobs": {}, "queues": {"durable": "os"}}).start()
    path = address(cluster).partition("://")[2]
    taken: Counter[Peer] = Counter()
    with peer(cluster) as producer, selectors.DefaultSelector() as selector:
        calls = {}
        for each in [Peer(path) for _ in range(CONSUMERS)]:
            selector.register(each.socket, selectors.EVENT_READ, each)
            calls[each] = each.begin("queue.get", "jobs", {})
        try:
            until_waiting(producer, "jobs", CONSUMERS)
            for number in range(ITEMS // 100):
                producer.begin("queue.put_many", "jobs", [number] * 100)
            while sum(taken.values()) < ITEMS:
                for key, _ in selector.select(30.0):
                    each = key.data
                    [[id_, attempt, _]] = each.end(calls[each])
                    taken[each] += 1
                    calls[each] = each.begin("queue.get", "jobs", {"ack": [[id_, attempt]]})
        finally:
            for each in calls:
                each.close()
        mean = ITEMS / CONSUMERS
        assert max(abs(taken[each] - mean) for each in calls) <= SHARE * mean, sorted(taken.values())


def test_a_bulk_of_low_priority_holds_a_high_one_up_for_a_moment(make_cluster: MakeCluster) -> None:
    """Neither what is there of it, nor what comes meanwhile: compared with an empty queue."""
    cluster = make_cluster(sections={"queue:jobs": {}, "queues": {"durable": "os"}}).start()
    is_over = threading.Event()

    def put_more() -> None:
        with peer(cluster) as more:
            while not is_over.is_set():
                more.call("queue.put_many", "jobs", ["low"] * 100)

    with peer(cluster) as producer, peer(cluster) as consumer:

        def seconds() -> float:
            """From a put of high priority until it is given."""
            began = time.monotonic()
            urgent = producer.call("queue.put", "jobs", "high", {"priority": 9})
            assert consumer.call("queue.get", "jobs", {}) == [[urgent, 1, "high"]]
            over = time.monotonic()
            assert consumer.call("queue.ack", "jobs", [[urgent, 1]]) is True
            return over - began

        alone = sorted(seconds() for _ in range(HIGH))
        producer.call("queue.put_many", "jobs", ["low"] * 20_000)
        thread = threading.Thread(target=put_more)
        thread.start()
        try:
            beside = sorted(seconds() for _ in range(HIGH))
        finally:
            is_over.set()
            thread.join()
    for each, name in ((alone, "alone"), (beside, "beside a bulk")):
        print(f"{name}: median {1000 * each[HIGH // 2]:.1f} ms, p99 {1000 * each[HIGH * 99 // 100]:.1f} ms")
    assert beside[HIGH // 2] - alone[HIGH // 2] < within(0.01)


def test_many_leases_end_in_time(make_cluster: MakeCluster) -> None:
    """Of a holder that is connected and silent."""
    cluster = make_cluster(sections={"queue:jobs": {"lease": 1.0}, "queues": {"durable": "os"}}).start()
    with peer(cluster) as holder, peer(cluster) as other:
        holder.call("queue.put_many", "jobs", list(range(LEASES)))
        assert len(holder.call("queue.get", "jobs", {"n": LEASES})) == LEASES
        began = time.monotonic()
        wait_until(lambda: other.call("queue.stats", "jobs")["leased"] == 0)
        assert time.monotonic() - began < 1.0 + LATE_SECONDS
        assert other.call("queue.stats", "jobs")["ready"] == LEASES


def test_a_keeper_with_nothing_to_do_is_quiet(make_cluster: MakeCluster) -> None:
    """Though a thousand gets wait in it."""
    psutil = pytest.importorskip("psutil")
    cluster = make_cluster(sections={"queue:jobs": {}}).start()
    with peer(cluster) as waiting, peer(cluster) as other:
        for _ in range(1000):
            waiting.begin("queue.get", "jobs", {})
        until_waiting(other, "jobs", 1000)
        process = psutil.Process(keeper(cluster))
        time.sleep(1.0)
        before = process.cpu_times()
        time.sleep(QUIET_SECONDS)
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        assert used <= 0.002 * QUIET_SECONDS + 0.02, used
