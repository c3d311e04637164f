"""A loop that is held up is told by somebody else, with method, file and line, and counted."""

from __future__ import annotations

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from patience import FULL_SCALE, within

from rpccluster.testing import RunningCluster, wait_until

STALLING = """
import asyncio, ctypes, json, time
from gevent.monkey import get_original
from rpccluster import rpc

sleep_in_c = get_original("time", "sleep")

class Stalling:
    @rpc(name="compute.in.python")
    def compute(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end: pass  # computes

    def sleep_in_c(self, seconds):
        sleep_in_c(seconds)  # sleeps

    def compute_below(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end: json.dumps([{"a": each} for each in range(1000)], indent=1)  # encodes

    def hold_the_gil(self, seconds):
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # holds

    async def block_the_loop(self, seconds):
        sleep_in_c(seconds)  # blocks

    async def rest(self, seconds):
        await asyncio.sleep(seconds)

    @rpc(thread=True)
    def sleep_in_a_thread(self, seconds):
        sleep_in_c(seconds)

    def wait(self, seconds):
        time.sleep(seconds)
"""
# a busy machine holds every loop up now and then: there the stalls that are told are longer, and others may be counted
LASTS_SECONDS, STALL_WARNING = (2.0, 0.2) if FULL_SCALE else (3.0, 0.6)
IN_TIME_SECONDS = within(1.0)
LINES = {
    mark: number for number, line in enumerate(STALLING.splitlines(), 1) for mark in re.findall(r"  # (\w+)$", line)
}


@pytest.fixture
def stalling(make_cluster) -> RunningCluster:
    """A cluster of one worker with that service."""
    running = make_cluster(service="stalling:Stalling", number_workers=1, stall_warning=STALL_WARNING)
    running.write_module("stalling", STALLING)
    return running.start()


def stalls(running: RunningCluster) -> int:
    """How many stalls ``status`` tells of the worker."""
    count = running.status()["workers"][0]["stalls"]
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize(
    ("method", "told", "line"),
    [
        ("compute.in.python", "The worker is held up", "computes"),
        ("sleep_in_c", "The worker is held up", "sleeps"),
        ("compute_below", "The worker is held up", "encodes"),
        ("block_the_loop", "The asyncio loop is held up", "blocks"),
    ],
)
def test_a_stall_is_told_while_it_lasts(stalling: RunningCluster, method: str, told: str, line: str) -> None:
    """Within a second, with method, file and line; and counted once, although it goes on."""
    with stalling.client() as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.call, method, LASTS_SECONDS)
        where = rf"{told}, for [0-2]\.\d\d s so far, by method {method} at \S*stalling\.py:{LINES[line]} \("
        wait_until(lambda: re.search(where, stalling.log_text()), IN_TIME_SECONDS)
        assert not (FULL_SCALE and answer.done())
        answer.result(60)
        wait_until(lambda: stalls(stalling))
    assert_once(stalling, f"by method {method}")


def assert_once(running: RunningCluster, text: str) -> None:
    """One line tells of it, and it is counted once: as often as a line tells, also of stalls that are the machine's."""
    assert running.log_text().count(text) == 1
    if FULL_SCALE:
        assert (stalls(running), running.log_text().count("held up")) == (1, 1)


def test_who_holds_the_gil_is_told_by_the_master(stalling: RunningCluster) -> None:
    """No thread of the worker runs meanwhile; its own line with file and line comes as soon as one does."""
    with stalling.client() as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.call, "hold_the_gil", LASTS_SECONDS)
        wait_until(
            lambda: (
                f"Worker (pid: {stalling.worker_pids()[0]}, slot: 0) stands still in hold_the_gil"
                in stalling.log_text()
            ),
            IN_TIME_SECONDS,
        )
        assert not (FULL_SCALE and answer.done())
        answer.result(60)
    stalling.wait_log("by method hold_the_gil at", within(5))
    wait_until(lambda: stalls(stalling))
    assert not FULL_SCALE or stalls(stalling) == 1


def test_a_stopped_worker_is_told(stalling: RunningCluster) -> None:
    """Its master tells it, once."""
    (pid,) = stalling.worker_pids()
    os.kill(pid, signal.SIGSTOP)
    stalling.wait_log(f"Worker (pid: {pid}, slot: 0) stands still in no method", within(2))
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: stalls(stalling) == 1 or (stalls(stalling) and not FULL_SCALE))


def test_what_holds_no_loop_up_is_not_told(make_cluster) -> None:
    """Waiting in a greenlet, on the loop and in a thread."""
    running = make_cluster(service="stalling:Stalling", number_workers=1, stall_warning=2.0)
    running.write_module("stalling", STALLING)
    with running.start().client() as client, ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda method: client.call(method, 3.0), ("wait", "rest", "sleep_in_a_thread")))
    assert "by method" not in running.log_text()
    assert stalls(running) == 0 or not FULL_SCALE


def test_a_method_is_told_once_a_minute_and_counted_each_time(stalling: RunningCluster) -> None:
    """The second line would come a minute later, and say how many there were."""
    with stalling.client() as client:
        for _ in range(3):
            client.call("sleep_in_c", 2 * STALL_WARNING)
        wait_until(lambda: stalls(stalling) >= 3)
        assert stalls(stalling) == 3 or not FULL_SCALE
    assert stalling.log_text().count("by method sleep_in_c") == 1
    wait_until(lambda: stalling.status()["master"]["totals"]["stalls"] == stalls(stalling))


def test_it_can_be_turned_off(make_cluster) -> None:
    """With 0 nobody watches."""
    running = make_cluster(service="stalling:Stalling", number_workers=1, stall_warning=0)
    running.write_module("stalling", STALLING)
    with running.start().client() as client:
        client.call("sleep_in_c", 1.0)
    time.sleep(0.1)  # no line comes late either
    assert "held up" not in running.log_text()
    assert "stands still" not in running.log_text()
    assert stalls(running) == 0


def test_it_is_changed_while_the_worker_runs(stalling: RunningCluster) -> None:
    """By `config set`, at once: off, nobody watches; on again, the next stall is told."""
    (pid,) = stalling.worker_pids()
    with stalling.client() as client:
        done = stalling.run("config", "set", "stall_warning=0")
        assert done.returncode == 0, done.stderr
        before = stalls(stalling)
        client.call("sleep_in_c", 3 * STALL_WARNING)
        assert stalls(stalling) == before
        assert stalling.run("config", "set", "stall_warning=0.1").returncode == 0
        client.call("sleep_in_c", 0.3)
        wait_until(lambda: stalls(stalling) > before)
    assert stalling.worker_pids() == [pid]
    wait_until(lambda: stalling.log_text().count("by method sleep_in_c") == 1)
