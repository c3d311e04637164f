"""`rpccluster.TaskPool` in a program that gevent has patched: greenlets wait, and the hub does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]

PROGRAM = """
from gevent import monkey
monkey.patch_all()
import gevent, os, threading, time
import rpccluster

work = "tests.pools.program.work"
turns = []

def turn():
    while True:
        turns.append(1)
        gevent.sleep(0.005)

gevent.spawn(turn)
heard = []
with rpccluster.TaskPool(2, [work, "operator"], queue_size=10) as pool:
    futures = [pool.submit("operator:neg", n, on_success=heard.append) for n in range(200)]
    assert [future.result(30) for future in futures] == [-n for n in range(200)]
    before = len(turns)
    slow = [gevent.spawn(lambda: pool.submit(work + ":sleep", 0.3).result(30)) for _ in range(2)]
    assert [each.get() for each in slow] == [0.3, 0.3]
    assert len(turns) - before > 5, len(turns) - before
    limited = pool.submit(work + ":spin", timeout=0.1)
    assert limited.exception(30).kind == "timed_out"
    big = os.urandom(3 << 20)
    assert pool.submit(work + ":echo", big).result(30) == (big,)
    assert list(pool.map("operator:neg", range(50), look_ahead=5)) == [-n for n in range(50)]
    running = pool.submit(work + ":sleep")
    gevent.sleep(0.2)
    assert running.cancel()
    assert running.exception(30).kind == "cancelled"
assert sorted(heard) == list(range(-199, 1)), heard
print("ended")
"""


def test_a_patched_program() -> None:
    """Results, callbacks, limits, a full pool, large values, cancel: each in greenlets, and the program ends."""
    shown = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (shown.stdout, shown.stderr) == ("ended\n", "")


THREADS = """
import sys, threading
import rpccluster

def use():
    with rpccluster.TaskPool(1, ["operator"]) as pool:
        results.append(pool.submit("operator:neg", 1).result(30))

results = []
threads = [threading.Thread(target=use) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(results)
left = rpccluster.TaskPool(1, ["time"])
left.submit("time:sleep", 3600)
"""


def test_a_program_with_threads_that_ends_without_closing() -> None:
    """A thread that made a pool may end; a pool that nobody closes ends with the program."""
    shown = subprocess.run(
        [sys.executable, "-c", THREADS], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (shown.stdout, shown.stderr, shown.returncode) == ("[-1, -1, -1]\n", "", 0)
