"""Many connections move at once: how long it takes, and how evenly they end up."""

from __future__ import annotations

import re
import signal
import statistics
import time

from callers import Callers
from lines import Line, lines_to
from patience import FULL_SCALE, within

from rpccluster.testing import RunningCluster, is_alive, wait_until

CONNECTIONS = 400 if FULL_SCALE else 120


def _counts(running: RunningCluster) -> list[int]:
    """Connections of each worker, those that retire included."""
    return [worker["connections"] for worker in running.status()["workers"]]


def _is_even(running: RunningCluster, workers: int) -> bool:
    """Whether so many workers share all connections, none more than a tenth from the mean."""
    counts = _counts(running)
    mean = CONNECTIONS / workers
    return len(counts) == workers and all(abs(count - mean) <= mean / 10 for count in counts)


def _check_all(lines: list[Line]) -> None:
    for line in lines:
        assert line.call("echo", 1) == 1


def test_idle_connections_keep_no_old_worker(cluster):
    """100 idle connections, HUP: the old workers are gone within 2 s, not after graceful_timeout."""
    running = cluster(number_workers=4, graceful_timeout=60)
    with lines_to(running.address, 100) as lines:
        _check_all(lines)
        old = running.worker_pids()
        began = time.monotonic()
        running.signal(signal.SIGHUP)
        wait_until(lambda: not any(is_alive(pid) for pid in old), within(2), "the old workers are gone")
        print(f"the old workers are gone after {time.monotonic() - began:.2f} s")
        _check_all(lines)
        wait_until(lambda: sum(_counts(running)) == 100, what="status tells of all")
        handed = [int(number) for number in re.findall(r"handed over (\d+) connections", running.log_text())]
        assert sum(handed) >= 100  # one may move twice


def test_new_workers_get_their_share_and_leave_it_again(cluster):
    """TTIN from 2 workers to 4, and TTOU back: soon each has its share, and no client has noticed."""
    running = cluster(number_workers=2)
    callers = Callers(running.address, connections=10, pause=0.002, method="echo")
    with lines_to(running.address, CONNECTIONS - 10) as lines, callers:
        _check_all(lines)
        for signum, workers in ((signal.SIGTTIN, 4), (signal.SIGTTOU, 2)):
            began = time.monotonic()
            for _ in range(2):
                running.signal(signum)
            wait_until(lambda workers=workers: _is_even(running, workers), within(2), f"{workers} have equal shares")
            print(f"{workers} workers: {_counts(running)} after {time.monotonic() - began:.2f} s")
        _check_all(lines)
    assert callers.faults == []


def test_rebalancing_can_be_off_and_asked_for(cluster):
    """With rebalance = false they stay until `rpccluster rebalance`, which moves no more than it must."""
    running = cluster(number_workers=1, rebalance=False)
    with lines_to(running.address, 60) as lines:
        _check_all(lines)
        assert running.run("scale", "3").returncode == 0
        wait_until(lambda: sorted(_counts(running)) == [0, 0, 60], what="none has moved")
        assert running.run("rebalance").returncode == 0
        wait_until(
            lambda: max(counts := _counts(running)) - min(counts) <= 2 and sum(counts) == 60, what="they are even"
        )
        moved = running.status()["master"]["handed_over"]
        assert moved <= 42, "more connections have moved than were too many"
        assert running.run("rebalance").returncode == 0
        assert running.status()["master"]["handed_over"] == moved
        _check_all(lines)


def test_a_reload_under_load_is_hardly_felt(cluster):
    """Paced calls go on through a HUP of 4 workers: the slowest of a hundred, and the number answered."""
    running = cluster(number_workers=4)
    with Callers(running.address, pause=0.005, method="echo") as callers:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 2, 5, "an undisturbed time has passed")
        reloaded = time.monotonic()
        assert running.run("reload", "--all").returncode == 0
        running.wait_ready()
        ended = time.monotonic()
    assert callers.faults == []
    before = [seconds for at, seconds in callers.latencies if at < reloaded]
    during = [seconds for at, seconds in callers.latencies if reloaded <= at < ended]
    share = len(during) / (ended - reloaded) / (len(before) / (reloaded - began))
    assert share > (0.3 if FULL_SCALE else 0.03)
    p99 = [statistics.quantiles(each, n=100)[98] * 1000 for each in (before, during)]
    print(f"p99 {p99[0]:.1f} ms before, {p99[1]:.1f} ms in the reload")
    assert p99[1] < (10 * max(p99[0], 10) if FULL_SCALE else 10_000)
