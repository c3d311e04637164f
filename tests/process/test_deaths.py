"""kill -9 of workers and of the master, and starts beside, after and at the same time as others."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from patience import FULL_SCALE, within

from rpccluster.testing import is_alive, wait_until

STARTS = 50 if FULL_SCALE else 8
KILLS = 20 if FULL_SCALE else 3


def test_a_killed_worker_has_a_successor_within_a_second(cluster):
    """Promise 2: a successor is ready within a second, however often; the other worker goes on."""
    running = cluster(number_workers=2)
    other = running.worker_pids()[1]
    for _ in range(KILLS):
        killed = running.worker_pids()[0]
        os.kill(killed, signal.SIGKILL)
        began = time.monotonic()
        wait_until(lambda killed=killed: killed not in running.worker_pids() and running.wait_ready())
        seconds = time.monotonic() - began
        print(f"successor ready after {seconds:.3f} s")
        assert seconds < within(1)
    assert running.worker_pids()[1] == other


def test_a_killed_master_takes_its_workers_along_and_blocks_no_start(cluster):
    """Promise 3: no worker is left after a second; a start right after the kill, on the same port, succeeds."""
    running = cluster(number_workers=3)
    running.write_config(bind=running.address)
    running.signal(signal.SIGTERM)
    running.wait()
    running.start()
    for _ in range(KILLS):
        pids = running.worker_pids()
        os.kill(running.master_pid, signal.SIGKILL)
        running.start(are_ready=False)
        wait_until(lambda pids=pids: not any(is_alive(pid) for pid in pids), within(1))
        running.wait_ready()


@pytest.mark.parametrize("slow", ["gevent", "slow"])
def test_a_master_killed_while_workers_boot_takes_them_along(make_cluster, slow):
    """Promise 3 holds from a worker's first moment on: while it imports what it needs, and while its service."""
    running = make_cluster(service="slow:Slow", number_workers=2)
    running.write_module(slow, "import time\ntime.sleep(60)\n")
    running.start(are_ready=False)
    status = wait_until(lambda: (status := running.try_status()) and len(status["workers"]) == 2 and status)
    os.kill(status["master"]["pid"], signal.SIGKILL)
    wait_until(lambda: not any(is_alive(worker["pid"]) for worker in status["workers"]), within(1))


@pytest.mark.parametrize("found", ["", "stale", "reused", "nonsense"])
def test_of_many_starts_exactly_one_lives(make_cluster, found):
    """Whatever the pidfile held before, one start wins; each other exits with 1 and names the winner's pid."""
    running = make_cluster(number_workers=1)
    running.write_config(log_file=running.log)
    texts = {"stale": f"{_dead_pid()}\n", "reused": f"{os.getpid()}\n", "nonsense": "\0 what?\n"}
    pidfile = running.folder / "cluster.pid"
    pidfile.write_text(texts.get(found, ""))
    starts = [running.launch() for _ in range(STARTS)]
    try:
        winner = running.wait_ready()["master"]["pid"]
        told = {start.pid: start.communicate(timeout=60)[1] for start in starts if start.pid != winner}
        words = (
            f"rpccluster: rpccluster already runs with pid {winner} (pidfile {pidfile}); stop it first, or set another"
        )
        assert set(told.values()) == {f"{words} pidfile\n"}
        assert [start.returncode for start in starts].count(1) == len(told) == STARTS - 1
        assert pidfile.read_text() == f"{winner}\n"
        assert running.master_pid == winner
    finally:
        for start in starts:
            start.kill()
            start.communicate()


def _dead_pid() -> int:
    """A pid that was a process's and is nobody's now."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_start_that_comes_before_the_winner_has_written_its_pid_waits_for_it(make_cluster):
    """The pid named is the lock holder's, never that of a stale file which the holder has yet to overwrite."""
    running = make_cluster()
    pidfile = running.folder / "cluster.pid"
    pidfile.write_text(f"{_dead_pid()}\n")
    with open(pidfile, "r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with running.launch() as start:
            wait_until(lambda: _has_open(start.pid, pidfile))
            held.write(f"{os.getpid()}\n")
            held.flush()
            assert f"already runs with pid {os.getpid()} " in start.communicate(timeout=60)[1]
            assert start.returncode == 1


def _has_open(pid: int, path: Path) -> bool:
    return any(file.path == str(path) for file in psutil.Process(pid).open_files())


def test_a_worker_that_dies_with_messages_unread_is_replaced(cluster):
    """The master outlives a worker that was stopped, was sent more than its channel holds, and died."""
    running = cluster()
    stopped, master = running.worker_pids()[0], running.master_pid
    os.kill(stopped, signal.SIGSTOP)
    with running.control() as control:
        while running.log_text().count("Handling signal: usr1") < 350:  # a channel holds 278 small messages
            os.kill(master, signal.SIGUSR1)
            control.call("status")
    os.kill(stopped, signal.SIGKILL)
    wait_until(lambda: not is_alive(stopped))
    assert running.wait_ready()["master"]["pid"] == master
