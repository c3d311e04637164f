"""Recycling by calls, memory and age, and by a signal to one worker: the successor is ready before anybody goes."""

from __future__ import annotations

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from holding import gate, let_go
from patience import FULL_SCALE, within
from worker_killed import raises_worker_lost

from rpccluster import Client, RemoteError
from rpccluster.testing import RunningCluster, call_once, is_alive, wait_until

CALLS = 20_000 if FULL_SCALE else 1_200
SAMPLES = 1_000 if FULL_SCALE else 100
CALLERS = 4

GROWING = """
import os

class Growing:
    def __init__(self):
        self.kept = []

    def grow(self, size):
        self.kept.append(b"x" * size)

    def pid(self):
        return os.getpid()
"""


def _call_often(address: str, numbers: range) -> None:
    for number in numbers:
        assert call_once(address, "sum", number, 1) == number + 1


@pytest.mark.timeout(600)
def test_recycling_by_calls_loses_no_call_and_never_leaves_a_gap(cluster):
    """Every call over short connections is answered, as many workers as wanted are ready at any time, and the
    worker that is overdue longest goes first, one at a time."""
    running = cluster(number_workers=4, max_requests=50, max_requests_jitter=20)
    address, ready = running.address, []
    with ThreadPoolExecutor(CALLERS) as pool, running.control() as control:
        share = CALLS // CALLERS
        callers = [pool.submit(_call_often, address, range(n * share, n * share + share)) for n in range(CALLERS)]
        while len(ready) < SAMPLES or not all(caller.done() for caller in callers):
            workers = control.call("status")["workers"]
            ready.append(sum(worker["state"] == "ready" for worker in workers))
        for caller in callers:
            caller.result()
    assert min(ready) >= 4
    wait_until(lambda: len(_retired(running.log_text())) >= 4)
    retired = _retired(running.log_text())
    wanted = re.findall(r"Worker \(pid: (\d+), slot: \d\) wants to retire: max_requests", running.log_text())
    assert retired == wanted[: len(retired)], "the longest overdue goes first"
    print(f"{CALLS} calls answered; {len(ready)} samples, at least {min(ready)} ready; {len(retired)} recycled")


def _retired(log: str) -> list[str]:
    return re.findall(r"Retiring worker \(pid: (\d+), slot: \d\): max_requests", log)


def _successor_in(running: RunningCluster, slot: int, predecessor: int) -> int:
    """Wait until the slot's worker is another, and ready, and the predecessor gone; return the new pid."""
    status = wait_until(
        lambda: not is_alive(predecessor) and running.wait_ready(),
    )
    pid = status["workers"][slot]["pid"]
    assert pid != predecessor
    return int(pid)


def test_a_worker_past_max_memory_is_recycled(make_cluster):
    """A worker whose RSS passes max_memory is replaced; the others stay."""
    running = make_cluster(service="growing:Growing", max_memory="150M")
    running.write_module("growing", GROWING)
    running.start()
    grown, other = running.worker_pids()
    with running.client_of(grown) as client:
        client.call("grow", 160 << 20)
    assert _successor_in(running, 0, grown)
    assert running.worker_pids()[1] == other
    running.wait_log(f"Retiring worker (pid: {grown}, slot: 0): max_memory")


def test_a_memory_limit_below_what_a_fresh_worker_needs_replaces_nobody_at_once(cluster):
    """No worker within its first ten seconds; the log says once what is wrong."""
    began = time.monotonic()
    running = cluster(number_workers=2, max_memory="1M")
    running.wait_log("max_memory is below what a fresh worker needs (found 1048576 bytes, ")
    pids = running.worker_pids()
    running.signal(signal.SIGTTIN)
    running.wait_ready(number_workers=3)
    found, log = running.worker_pids()[:2], running.log_text()
    if time.monotonic() - began < 10.0:  # else the machine is so slow that they may have been replaced
        assert found == pids
        assert log.count("max_memory") == 1


def test_workers_past_max_lifetime_are_recycled_one_at_a_time(make_cluster):
    """Each worker is replaced when it has served for max_lifetime seconds, never two at once."""
    running = make_cluster(number_workers=2, max_lifetime=1).start(are_ready=False)
    first = wait_until(lambda: len(found := running.worker_pids()) >= 2 and found)
    ready = []

    def are_replaced() -> bool:
        workers = running.status()["workers"]
        ready.append(sum(worker["state"] == "ready" for worker in workers))
        return not any(worker["pid"] in first for worker in workers)

    wait_until(are_replaced)
    assert min(ready) >= 2
    for pid in first:
        retired = re.compile(rf"Retiring worker \(pid: {pid}, slot: [01]\): max_lifetime")
        wait_until(lambda retired=retired: retired.search(running.log_text()))


def test_a_worker_told_to_terminate_is_replaced_first(held):
    """TERM retires one worker: its successor is ready before it goes, and its running call is answered."""
    running = held(number_workers=2)
    leaver = running.worker_pids()[0]
    with running.client_of(leaver) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.call, "hold", gate(running))
        wait_until(lambda: running.worker(leaver)["active_calls"] == 1)
        os.kill(leaver, signal.SIGTERM)
        wait_until(lambda: running.worker(leaver).get("state") == "retiring")
        assert len(running.worker_pids()) == 2
        let_go(running)
        assert answer.result() == "let go"
    assert _successor_in(running, 0, leaver)


def test_a_call_longer_than_graceful_timeout_is_told_that_its_worker_retired(cluster):
    """graceful_timeout bounds a single worker's retirement, too: its call gets an error reply, then it is gone."""
    running = cluster(number_workers=2, graceful_timeout=0.5)
    leaver = running.worker_pids()[0]
    with running.client_of(leaver) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.call, "sleep", 30)
        wait_until(lambda: running.worker(leaver)["active_calls"] == 1)
        os.kill(leaver, signal.SIGTERM)
        with pytest.raises(RemoteError, match=r"^WorkerRetired: "):
            answer.result(30)
    wait_until(lambda: not is_alive(leaver), within(3))
    assert running.wait_ready()["workers"][0]["pid"] != leaver


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_a_worker_told_to_end_at_once_is_replaced(cluster, signum):
    """INT and QUIT end one worker at once, in mid-call; another takes its slot."""
    running = cluster(number_workers=2)
    leaver = running.worker_pids()[0]
    with running.client_of(leaver) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.call, "sleep", 60)
        wait_until(lambda: running.worker(leaver)["active_calls"] == 1)
        os.kill(leaver, signum)
        wait_until(lambda: not is_alive(leaver), within(2))
        with raises_worker_lost():
            answer.result()
    assert _successor_in(running, 0, leaver)


def test_signals_meant_for_the_master_leave_workers_alone(cluster):
    """A pkill by name hits workers, too: HUP, TTIN, TTOU, USR1, USR2 and WINCH mean nothing to them."""
    running = cluster(number_workers=2)
    pids = running.worker_pids()
    with running.client_of(pids[0]) as client:
        for name in ("HUP", "TTIN", "TTOU", "USR1", "USR2", "WINCH"):
            for pid in pids:
                os.kill(pid, getattr(signal, f"SIG{name}"))
            assert client.call("pid") == pids[0]
    status = running.wait_ready(number_workers=2)
    assert [worker["pid"] for worker in status["workers"]] == pids
    assert status["master"]["generation"] == 1


def test_totals_never_go_back(cluster):
    """What workers have counted stays in the totals when they are recycled, and when a new master takes over."""
    running = cluster(number_workers=1, max_requests=10)
    address = running.address

    def calls() -> int:
        return running.status()["master"]["totals"]["calls"]

    def call_plainly(number: int) -> None:
        with Client(address, timeout=None) as client:  # so it does not ask what the server offers
            client.call("sum", number, 1)

    for number in range(25):
        call_plainly(number)
    wait_until(lambda: calls() == 25)
    assert sum(worker["calls"] for worker in running.wait_ready()["workers"]) < 25
    master = running.master_pid
    assert running.run("upgrade").returncode == 0
    wait_until(lambda: not is_alive(master))
    assert wait_until(lambda: calls() == 25)
    call_plainly(1)
    wait_until(lambda: calls() == 26)
