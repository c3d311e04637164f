"""The counters of a cluster against what its clients have seen, while everything that counts is replaced or killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lines import lines_to

from rpccluster.client import Client
from rpccluster.errors import RemoteError, RPCClusterError
from rpccluster.metrics.families import families
from rpccluster.metrics.layout import Block
from rpccluster.metrics.totals import Reader, Totals
from rpccluster.testing import RunningCluster, is_alive, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
CALLS = 100_000 if FULL_SCALE else 1_500  # in each of the two tests with many
CALLERS = 8 if FULL_SCALE else 4
KILLS = 60 if FULL_SCALE else 3

SERVICE = """
import os
import gevent
from rpccluster import rpc

class Counted:
    def add(self, a, b):
        return a + b

    def pid(self):
        return os.getpid()

    def fail(self):
        raise ValueError("no")

    @rpc(timeout=0.02)
    def late(self):
        gevent.sleep(5)

    @rpc(thread=True)
    def threaded(self):
        return 1

    def nap(self):
        gevent.sleep(0.001)

    def hold(self, seconds):
        gevent.sleep(seconds)
"""


@contextmanager
def reader_of(running: RunningCluster) -> Iterator[Reader]:
    """What reads the counters of a cluster, whichever master it has."""
    folder = Path(f"/proc/{running.master_pid}/fd")
    path = next(link for link in folder.iterdir() if "rpccluster-metrics" in os.readlink(link))
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield Reader(descriptor)
    finally:
        os.close(descriptor)


def counters(totals: Totals) -> dict[tuple[str, str], float]:
    """All that must never go back, by family and labels."""
    return {
        (family.name + sample.suffix, str(sample.labels)): sample.value
        for family in families(totals)
        if family.kind != "gauge"
        for sample in family.samples
    }


class Watch:
    """Reads the counters all the time, and notes each that has gone back or vanished."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.faults: list[str] = []
        self.reads = 0

    def _watch(self) -> None:
        before: dict[tuple[str, str], float] = {}
        while not self._is_over.is_set():
            now = counters(self._reader.read())
            worse = {key: now.get(key) for key, value in before.items() if now.get(key, -1) < value}
            self.faults += [f"{key}: {before[key]}, then {value}" for key, value in worse.items()]
            before = now
            self.reads += 1
            time.sleep(0.01)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


class Callers:
    """Threads that make calls of every sort until there were enough, and count how each has ended."""

    def __init__(self, running: RunningCluster, calls: int) -> None:
        self._running = running
        self._left = calls
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]
        self.seen: Counter[tuple[str, str]] = Counter()
        self.unknown = 0  # calls of which nobody knows how they have ended
        self._lock = threading.Lock()

    def _call(self, seed: int) -> None:
        made, chance = Counter[Any](), random.Random(seed)
        with self._running.client() as client:
            while self._take():
                method, params = chance.choice(_CALLS)
                made[method if method in _METHODS else "other", _outcome(client, method, params)] += 1
        with self._lock:
            self.unknown += sum(count for (_, outcome), count in made.items() if outcome == "unknown")
            self.seen.update(made)

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    @property
    def left(self) -> int:
        """Calls that were not begun yet."""
        return self._left

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()


_METHODS = ("add", "fail", "late", "threaded", "nap")
_CALLS: list[tuple[str, list[Any]]] = [
    *[("add", [1, 2])] * 40,
    *[("fail", [])] * 5,
    *[("threaded", [])] * 10,
    *[("nap", [])] * 10,
    ("add", [1]),
    ("late", []),
    ("no_such_method", []),
]


def _outcome(client: Client, method: str, params: list[Any]) -> str:
    try:
        client.call(method, *params)
    except RemoteError as error:
        begin = str(error).partition(":")[0]
        return {"TimeoutError": "timeout", "WorkerLost": "lost"}.get(begin, "error")
    except TimeoutError:
        return "timeout"
    except RPCClusterError:
        return "unknown"
    return "ok"


def counted(totals: Totals) -> dict[tuple[str, str], int]:
    """How often calls of each method have ended how, of the methods that the callers know."""
    return {
        (name, outcome): count
        for name, calls in totals.methods().items()
        for outcome, count in calls.outcomes.items()
        if count and (name in _METHODS or name == "other")
    }


@pytest.fixture
def counting(make_cluster: Any) -> RunningCluster:
    """A cluster that counts, and has restless workers."""
    running: RunningCluster = make_cluster(
        service="counted:Counted",
        number_workers=2,
        max_requests=CALLS // 20,
        sections={"metrics": {"bind": "tcp://127.0.0.1:0"}},
    )
    running.write_module("counted", SERVICE)
    return running.start()


def _upgrade(running: RunningCluster) -> None:
    old = running.master_pid
    os.kill(old, signal.SIGUSR2)
    wait_until(lambda: not is_alive(old))
    running.wait_ready()


def test_the_counters_are_what_clients_have_seen(counting: RunningCluster) -> None:
    """Recycling, reload and upgrade: every call counts once, and no counter goes back."""
    with reader_of(counting) as reader:
        with lines_to(counting.address, 4), Watch(reader) as watch, Callers(counting, CALLS) as callers:
            wait_until(lambda: reader.read().connections >= 4, what="those that stay are served")
            wait_until(lambda: callers.left < CALLS * 0.8, 60)
            counting.run("reload")
            wait_until(lambda: callers.left < CALLS * 0.5, 60)
            _upgrade(counting)
            wait_until(lambda: reader.read().handovers.total >= 4, what="their moves are counted")
        assert callers.unknown == 0
        wait_until(lambda: counted(reader.read()) == callers.seen, what="all are counted")
        assert watch.faults == []
        restarts = reader.read().counts(Block.RESTARTS)
        assert restarts["workers\nmax_requests"] >= 1
        assert not {*restarts} - {"workers\nmax_requests", "workers\nreload"}


def _killed(reader: Reader) -> int:
    """How many workers' deaths by SIGKILL are counted."""
    return int(reader.read().counts(Block.RESTARTS).get("workers\nSIGKILL", 0))


def _kill_one(running: RunningCluster, reader: Reader, number: int) -> None:
    """Kill workers until one has died of it, the ``number``-th: others end by themselves at that moment."""

    def is_dead() -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(running.worker_pids()), signal.SIGKILL)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: _killed(reader) >= number, 5)
        return _killed(reader) >= number

    wait_until(is_dead, 60, "a worker was killed")


def test_killed_workers_take_only_their_own_calls(counting: RunningCluster) -> None:
    """Nothing of what was answered is missing after `kill -9`; begun calls are lost, and no counter goes back."""
    with reader_of(counting) as reader:
        with Watch(reader) as watch, Callers(counting, CALLS) as callers:
            for kill in range(1, KILLS + 1):
                wait_until(lambda: callers.left < CALLS * (1 - kill / (KILLS + 1)), 60)  # noqa: B023
                _kill_one(counting, reader, kill)
        found = counted(reader.read())
        for key in {*found, *callers.seen}:
            if key[1] not in ("unknown", "lost"):
                assert callers.seen[key] <= found.get(key, 0), key
        more = sum(found.values()) - sum(callers.seen.values()) + callers.unknown
        assert 0 <= more <= callers.unknown + KILLS * 2 * CALLERS
        assert watch.faults == []
        assert _killed(reader) >= KILLS


def test_gauges_of_the_dead_never_stay(counting: RunningCluster) -> None:
    """Connections of killed workers are open nowhere; a master that is gone shows no settings."""
    with reader_of(counting) as reader:
        clients = [counting.client_of(pid) for pid in counting.worker_pids()]
        wait_until(lambda: reader.read().connections >= 2)
        assert reader.read().settings_versions["workers"] == 1
        for client in clients:
            client.close()
        wait_until(lambda: reader.read().connections == 0)
        _upgrade(counting)
        assert reader.read().settings_versions["workers"] == 1
        counting.stop()
        wait_until(lambda: reader.read().settings_versions == {})  # the locks of a process go at its very end
        assert reader.read().connections == 0


def test_calls_of_a_killed_worker_are_lost(counting: RunningCluster) -> None:
    """They are counted by the master, since nobody knows how they would have ended."""
    with reader_of(counting) as reader:
        (pid, *_) = counting.worker_pids()
        client = counting.client_of(pid)
        thread = threading.Thread(target=_outcome, args=(client, "hold", [30]))
        thread.start()
        wait_until(lambda: counting.worker(pid)["active_calls"] == 1)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: sum(calls.outcomes["lost"] for calls in reader.read().methods().values()) == 1)
        client.close()
        thread.join()
