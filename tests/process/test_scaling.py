"""TTIN, TTOU and WINCH: as many workers as asked for, each with its slot, title and CPU."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import psutil
from holding import gate, let_go

from rpccluster.system import allowed_cpus
from rpccluster.testing import RunningCluster, is_alive, title_of, wait_until


def _check_scale(running: RunningCluster, signum: int, number_workers: int) -> None:
    """Send the signal: status, slots, titles and CPU sets follow."""
    running.signal(signum)
    workers = running.wait_ready(number_workers=number_workers)["workers"]
    assert [worker["slot"] for worker in workers] == list(range(number_workers))
    for worker in workers:
        assert title_of(worker["pid"]) == f"rpccluster: worker {worker['slot']} [mine]"
        assert psutil.Process(worker["pid"]).cpu_affinity() == worker["cpus"]
    cpus = {cpu for worker in workers for cpu in worker["cpus"]}
    assert len(cpus) == min(number_workers, len(allowed_cpus())), "the CPUs are handed out in turns"


def test_ttin_and_ttou_ten_each(cluster):
    """TTIN adds a worker, TTOU takes one away, never below one; HUP puts the file's number back."""
    running = cluster(number_workers=2, cpu_affinity="auto", proc_name="mine")
    assert title_of(running.master_pid) == "rpccluster: master [mine]"
    for number_workers in range(3, 13):
        _check_scale(running, signal.SIGTTIN, number_workers)
    for number_workers in range(11, 1, -1):
        _check_scale(running, signal.SIGTTOU, number_workers)
    _check_scale(running, signal.SIGTTOU, 1)
    running.signal(signal.SIGTTOU)
    wait_until(lambda: running.log_text().count("Handling signal: ttou") == 12)
    _check_scale(running, signal.SIGHUP, 2)


def test_a_worker_scaled_down_answers_its_call_and_says_so_in_its_title(held):
    """A retiring worker stays, in status and title, until its last call is answered; then it is gone."""
    running = held(number_workers=2, graceful_timeout=60)
    leaver = running.worker_pids()[1]
    with running.client_of(leaver) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.call, "hold", gate(running))
        wait_until(lambda: running.worker(leaver)["active_calls"] == 1)
        running.signal(signal.SIGTTOU)
        wait_until(lambda: running.worker(leaver)["state"] == "retiring")
        wait_until(lambda: title_of(leaver) == "rpccluster: worker 1 [rpccluster] (retiring)")
        let_go(running)
        assert answer.result() == "let go"
    wait_until(lambda: not is_alive(leaver))
    running.wait_ready(number_workers=1)


def test_winch_drains_and_ttin_begins_with_one_worker(cluster):
    """After WINCH there is no worker and the master waits; so do callers, until TTIN brings the first worker."""
    running = cluster(number_workers=3)
    address = running.address
    _drain(running)
    with ThreadPoolExecutor(1) as pool, running.client() as client:
        answer = pool.submit(client.call, "sum", 1, 2)
        running.signal(signal.SIGTTOU)  # there is none to take away, and none comes
        wait_until(lambda: "Handling signal: ttou" in running.log_text())
        assert running.status()["workers"] == []
        running.signal(signal.SIGTTIN)
        assert answer.result() == 3
    assert running.wait_ready(number_workers=1)["master"]["listeners"] == [address]


def test_winch_then_hup_brings_the_files_number_back(cluster):
    """After a drain HUP starts as many workers as the file says, of the next generation."""
    running = cluster(number_workers=3)
    _drain(running)
    running.write_config(proc_name="renamed")
    running.signal(signal.SIGHUP)
    status = running.wait_ready(number_workers=3)
    assert {worker["generation"] for worker in status["workers"]} == {2} == {status["master"]["generation"]}
    wait_until(lambda: title_of(running.master_pid) == "rpccluster: master [renamed]")


def _drain(running: RunningCluster) -> None:
    running.signal(signal.SIGWINCH)
    wait_until(lambda: running.status()["workers"] == [] and running.status()["master"]["state"] == "drained")
