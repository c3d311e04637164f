"""TERM, INT, QUIT and `stop`: what runs is answered or told why not, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from holding import gate, let_go
from patience import within

from rpccluster import ConnectFailed, ConnectionLost, RemoteError
from rpccluster.testing import RunningCluster, call_once, is_alive, wait_until


@contextmanager
def _running_call(running: RunningCluster, method: str, param: Any):
    """A call, begun; what it brings."""
    with ThreadPoolExecutor(1) as pool:
        answer: Future[Any] = pool.submit(call_once, running.address, method, param, seconds=60)
        wait_until(lambda: sum(worker["active_calls"] for worker in running.status()["workers"]) == 1)
        yield answer


def _is_refused(address: str) -> bool:
    try:
        call_once(address, "sum", 1)
    except ConnectFailed:
        return True
    except ConnectionLost:  # accepted by a worker that has yet to hear of the stop
        pass
    return False


def _check_all_gone(running: RunningCluster, pids: list[int]) -> None:
    assert not any(is_alive(pid) for pid in pids)
    assert not (running.folder / "control.sock").exists()
    assert (running.folder / "cluster.pid").read_text() == ""


def test_a_graceful_stop_answers_what_runs(held):
    """TERM: the running call is answered, new callers are refused, the master ends with 0."""
    running = held(graceful_timeout=60)
    pids, address = running.worker_pids(), running.address
    with _running_call(running, "hold", gate(running)) as answer:
        running.signal(signal.SIGTERM)
        running.wait_log("Handling signal: term")
        wait_until(lambda: _is_refused(address), within(1))
        let_go(running)
        assert answer.result() == "let go"
    assert running.wait() == 0
    _check_all_gone(running, pids)


def test_a_graceful_stop_ends_in_time(cluster):
    """graceful_timeout: a call that runs longer gets its error reply, and the stop takes no longer."""
    running = cluster(graceful_timeout=0.5)
    pids = running.worker_pids()
    with _running_call(running, "sleep", 60) as answer:
        running.signal(signal.SIGTERM)
        began = time.monotonic()
        with pytest.raises(RemoteError, match=r"^WorkerRetired: "):
            answer.result()
        assert 0.4 < time.monotonic() - began < within(1.5)
    assert running.wait(within(3)) == 0
    _check_all_gone(running, pids)


def test_a_worker_that_does_not_finish_in_time_is_killed(cluster):
    """graceful_timeout: a call that never yields cannot hold up the stop; its worker is killed."""
    running = cluster(graceful_timeout=0.5, timeout=0)
    pids = running.worker_pids()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call_once, running.address, "spin", 60)
        wait_until(lambda: sum(worker["active_calls"] for worker in running.status()["workers"]) == 1)
        running.signal(signal.SIGTERM)
        with pytest.raises(ConnectionLost):
            answer.result()
    assert running.wait(within(3)) == 0
    _check_all_gone(running, pids)
    assert "it did not finish in graceful_timeout" in running.log_text()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_waits_for_nobody(cluster, signum):
    """INT and QUIT: running calls are cut off, the master ends with 0 at once."""
    running = cluster()
    pids = running.worker_pids()
    with _running_call(running, "sleep", 60) as answer:
        running.signal(signum)
        assert running.wait(within(1)) == 0
        with pytest.raises(ConnectionLost):
            answer.result()
    _check_all_gone(running, pids)


def test_a_second_signal_makes_a_graceful_stop_quick(cluster):
    """INT while TERM is obeyed: the stop is quick from then on."""
    running = cluster()
    pids, master = running.worker_pids(), running.master_pid
    with _running_call(running, "sleep", 60) as answer:
        os.kill(master, signal.SIGTERM)
        running.wait_log("Handling signal: term")
        os.kill(master, signal.SIGINT)
        assert running.wait(within(1)) == 0
        with pytest.raises(ConnectionLost):
            answer.result()
    _check_all_gone(running, pids)


def test_a_term_to_every_process_is_a_graceful_stop_of_the_cluster(held):
    """TERM to master and workers at once, as systemd sends it: no worker is replaced, what runs is answered."""
    running = held()
    pids, master = running.worker_pids(), running.master_pid
    with _running_call(running, "hold", gate(running)) as answer:
        os.kill(master, signal.SIGSTOP)  # whatever comes first, it sees all at once
        for pid in [*pids, master]:
            os.kill(pid, signal.SIGTERM)
        os.kill(master, signal.SIGCONT)
        let_go(running)
        assert answer.result() == "let go"
    assert running.wait() == 0
    assert running.log_text().count("Booting worker") == 2
    _check_all_gone(running, pids)
