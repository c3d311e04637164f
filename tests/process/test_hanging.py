"""Workers that show no sign of life, and those that were only stopped along with their master."""

from __future__ import annotations

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from patience import FULL_SCALE, within
from worker_killed import raises_worker_lost

from rpccluster.testing import is_alive, wait_until

TIMEOUT = 3 if FULL_SCALE else 2

HANGING = """
import os
from rpccluster import rpc

class Hanging:
    def pid(self):
        return os.getpid()

    @rpc(name="hang.for.ever")
    def hang(self):
        while True:
            pass
"""


def test_a_worker_that_hangs_is_killed_and_its_method_named(make_cluster):
    """`timeout`: a method that never yields is killed in time; the log has its name and its stack."""
    running = make_cluster(service="hanging:Hanging", timeout=3)
    running.write_module("hanging", HANGING)
    hung, other = running.start().worker_pids()
    with running.client_of(hung) as client, ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        answer = pool.submit(client.call, "hang.for.ever")
        with raises_worker_lost():
            answer.result(60)
        seconds = time.monotonic() - began
    print(f"killed after {seconds:.2f} s")
    assert 3 <= seconds <= within(5)
    running.wait_log(f"WORKER TIMEOUT (pid: {hung}) in hang.for.ever")
    assert f"Retiring worker (pid: {hung}," not in running.log_text()
    assert re.search(r'File ".*hanging\.py", line 1[12] in hang\n', running.log_text())
    pids = [worker["pid"] for worker in running.wait_ready()["workers"]]
    assert pids[0] != hung and pids[1] == other
    assert not is_alive(hung)


def test_a_stopped_cluster_goes_on_with_the_same_workers(cluster):
    """Time in which the master was stopped, too, does not count as a worker's silence."""
    running = cluster(timeout=TIMEOUT)
    master, workers = running.master_pid, running.worker_pids()
    for pid in [master, *workers]:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(TIMEOUT + 2)  # what is tested is that this long a time has passed
    for pid in [master, *workers]:
        os.kill(pid, signal.SIGCONT)
    resumed_at = running.status()["master"]["uptime_seconds"]
    wait_until(lambda: running.status()["master"]["uptime_seconds"] > resumed_at + TIMEOUT + 1)
    assert (running.master_pid, running.worker_pids()) == (master, workers)


def test_a_stopped_worker_is_killed_and_replaced(cluster):
    """A worker that alone is stopped shows no sign of life: it is killed and has a successor."""
    running = cluster(timeout=1)
    stopped = running.worker_pids()[0]
    os.kill(stopped, signal.SIGSTOP)
    wait_until(lambda: not is_alive(stopped))
    running.wait_log(f"WORKER TIMEOUT (pid: {stopped}) in no method")
    assert running.wait_ready()["workers"][0]["pid"] != stopped
