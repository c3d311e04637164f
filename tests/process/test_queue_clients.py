"""The clients of queues with a real keeper, which is killed again and again: nothing is lost, nothing is put twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import FULL_SCALE, within

from rpccluster import LeaseLost, Queue, aio
from rpccluster.testing import RunningCluster, wait_until

KILLS = 100 if FULL_SCALE else 5
PRODUCERS = 16 if FULL_SCALE else 4
PATIENCE = 60.0

SERVICE = """
import gevent
import rpccluster


class Shop:
    def order(self, number):
        return rpccluster.queue("jobs").put({"number": number})

    def work(self):
        with rpccluster.queue("jobs").get() as item:
            return item.value["number"]
"""


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunningCluster]:
    sections: dict[str, dict[str, object]] = {
        "queues": {"session_grace": getattr(request, "param", PATIENCE)},  # a slow client has not gone
        "queue:jobs": {"lease": 20, "max_attempts": 3},
        "queue:other": {},
    }
    running = RunningCluster(tmp_path, {"service": "shop:Shop", "number_workers": 1}, sections=sections)
    running.write_module("shop", SERVICE)
    try:
        yield running.start()
    finally:
        running.stop()


def address(cluster: RunningCluster) -> str:
    return str(cluster.group("queues")["listeners"][0])


def keeper_pid(cluster: RunningCluster) -> int:
    return int(cluster.wait_group("queues")["processes"][0]["pid"])


def kill_keeper(cluster: RunningCluster) -> None:
    """Kill it, and wait until its successor serves."""
    pid = keeper_pid(cluster)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: cluster.group("queues")["processes"][0]["pid"] not in (pid, None), what="another keeper boots")


class Crowd:
    """Producers and consumers in threads, over one object each kind; what they know for sure."""

    def __init__(self, where: str) -> None:
        self.puts = Queue(where, "jobs", timeout=PATIENCE)
        self.gets = Queue(where, "jobs", timeout=PATIENCE)
        self.put: dict[int, Any] = {}  # the id by the number
        self.acked: list[int] = []
        self.attempts: list[int] = []
        self.twice: list[int] = []
        self.errors: list[BaseException] = []
        self.stops = False
        self.ends = False
        jobs = [(self.produce, number) for number in range(PRODUCERS)] + [(self.consume, 0)] * PRODUCERS
        self.threads = [threading.Thread(target=self.run, args=job, daemon=True) for job in jobs]
        for thread in self.threads:
            thread.start()

    def run(self, job: Any, number: int) -> None:
        try:
            job(number)
        except BaseException as error:
            self.errors.append(error)

    def produce(self, first: int) -> None:
        number = first
        while not self.stops:
            self.put[number] = self.puts.put(number)
            number += PRODUCERS

    def consume(self, _: int) -> None:
        done: list[Any] = []
        while True:
            item = self.gets.get(0.2, ack=done)
            self.acked += [each.value for each in done]
            done = []
            if item is None:
                if self.ends:
                    return
                continue
            self.attempts.append(item.attempt)
            if random.random() < 0.5:
                done = [item]
            else:
                item.ack()
                self.acked.append(item.value)

    def finish(self) -> None:
        self.stops = True
        for thread in self.threads[:PRODUCERS]:
            thread.join(60)
        self.puts.join(60)
        self.ends = True
        for thread in self.threads[PRODUCERS:]:
            thread.join(60)
        self.gets.close()
        self.puts.close()


def test_a_keeper_that_is_killed_loses_and_doubles_nothing(cluster: RunningCluster) -> None:
    """Each acknowledged put is acked once, in its first attempt: the leases of living consumers go on."""
    crowd = Crowd(address(cluster))
    for _ in range(KILLS):
        seen = len(crowd.acked)
        wait_until(lambda seen=seen: len(crowd.acked) > seen + 20, what="items go through")  # type: ignore[misc]
        kill_keeper(cluster)
    crowd.finish()
    assert crowd.errors == []
    assert sorted(crowd.acked) == sorted(crowd.put)
    assert len(set(crowd.put.values())) == len(crowd.put)
    assert set(crowd.attempts) == {1}


def test_a_reload_and_an_upgrade_under_load(cluster: RunningCluster) -> None:
    """No call fails, no item comes twice; items that are held stay held by the same attempt."""
    crowd = Crowd(address(cluster))
    with Queue(address(cluster), "other") as queue:
        queue.put("held")
        item = queue.get(PATIENCE)
        for signum in (signal.SIGHUP, signal.SIGUSR2, signal.SIGUSR2):
            seen, master, pid = len(crowd.acked), cluster.master_pid, keeper_pid(cluster)
            wait_until(lambda seen=seen: len(crowd.acked) > seen + 20, what="items go through")  # type: ignore[misc]
            cluster.signal(signum)
            if signum == signal.SIGUSR2:
                wait_until(lambda master=master: cluster.master_pid != master, 60)  # type: ignore[misc]
                wait_until(lambda pid=pid: keeper_pid(cluster) != pid, 60)  # type: ignore[misc]
            cluster.wait_ready()
        crowd.finish()
        assert item is not None
        item.ack()
        assert queue.stats()["ready"] == queue.stats()["dead"] == 0
    assert crowd.errors == []
    assert sorted(crowd.acked) == sorted(crowd.put)
    assert len(set(crowd.put.values())) == len(crowd.put)
    assert set(crowd.attempts) == {1}


@pytest.mark.parametrize("cluster", [5.0], indirect=True)
def test_a_held_item_outlives_its_keeper(cluster: RunningCluster) -> None:
    """Its consumer works, and calls nothing; a consumer that was killed loses its item at once."""
    where = address(cluster)
    with Queue(where, "jobs") as queue, Queue(where, "jobs") as other:
        queue.put_many(["held", "lost"])
        item = queue.get(PATIENCE)
        pid = os.fork()
        if pid == 0:
            try:
                queue.get(PATIENCE)
                signal.pause()
            finally:
                os._exit(1)
        wait_until(lambda: other.stats()["leased"] == 2, what="the child has the other one")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        begun = time.monotonic()
        again = other.get(PATIENCE)
        assert again is not None and item is not None
        assert (again.value, again.attempt) == ("lost", 2)
        assert time.monotonic() - begun < within(5)
        kill_keeper(cluster)
        wait_until(lambda: other.stats()["leased"] == 2)
        with pytest.raises(AssertionError):  # no session has ended: nothing becomes ready, also after the grace
            wait_until(lambda: other.stats()["ready"], 6.0)
        item.ack()
        again.ack()


def test_queues_of_asyncio(cluster: RunningCluster) -> None:
    """Many tasks of one object, with a keeper that is killed meanwhile."""

    async def main() -> list[int]:
        async with aio.Queue(address(cluster), "jobs", timeout=PATIENCE) as queue:
            gets = [asyncio.ensure_future(queue.get()) for _ in range(50)]
            ids = await asyncio.gather(*(queue.put(number) for number in range(25)))
            await asyncio.get_running_loop().run_in_executor(None, kill_keeper, cluster)
            ids += await asyncio.gather(*(queue.put(number) for number in range(25, 50)))
            items = await asyncio.gather(*gets)
            assert sorted(ids) == sorted(item.id for item in items if item)
            await queue.ack([item for item in items if item])
            await queue.join()
            return sorted(item.value for item in items if item)

    assert asyncio.run(asyncio.wait_for(main(), 120)) == list(range(50))


def test_workers_wait_as_greenlets_do(cluster: RunningCluster) -> None:
    """Twenty calls of one worker wait for an item; it serves others meanwhile."""
    with cluster.client() as client, Queue(address(cluster), "jobs") as queue:
        waiting = [client.call_async("work", timeout=PATIENCE) for _ in range(20)]
        wait_until(lambda: queue.stats()["waiting"] == 20, what="all wait")
        for number in range(20):
            assert client.call("order", number)
        assert sorted(each.result(PATIENCE) for each in waiting) == list(range(20))
        queue.join(PATIENCE)


def test_a_worker_that_is_recycled_keeps_what_it_holds(cluster: RunningCluster) -> None:
    """Until its calls are done."""
    with Queue(address(cluster), "jobs") as queue, cluster.client() as client:
        waiting = client.call_async("work", timeout=PATIENCE)
        wait_until(lambda: queue.stats()["waiting"] == 1, what="it waits")
        cluster.signal(signal.SIGHUP)
        queue.put({"number": 7})
        assert waiting.result(PATIENCE) == 7
        queue.join(PATIENCE)
        with contextlib.suppress(LeaseLost):
            assert queue.stats()["dead"] == 0
