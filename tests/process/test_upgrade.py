"""USR2 and `upgrade`: a new master from the code on disk takes over; one that cannot start changes nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import psutil
import pytest
from answering import ANSWERS
from holding import gate, let_go
from patience import FULL_SCALE, within

from rpccluster.testing import RunningCluster, call_once, is_alive, wait_until

UPGRADES_UNDER_LOAD = 20 if FULL_SCALE else 1
UPGRADES = 20 if FULL_SCALE else 3


class Callers:
    """Threads that call over fresh connections all the time; not one may be refused or left unanswered."""

    def __init__(self, address: str, threads: int = 2) -> None:
        self._address = address
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(threads)]
        self.answers: list[Any] = []
        self.faults: list[Exception] = []

    def _call(self) -> None:
        while not self._is_over.is_set():
            try:
                self.answers.append(call_once(self._address, "answer"))
            except Exception as error:
                self.faults.append(error)

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def _upgrade(running: RunningCluster) -> int:
    """Send USR2 and wait until the old master is gone; return the new one's pid, which has everything."""
    old = running.master_pid
    os.kill(old, signal.SIGUSR2)
    wait_until(lambda: not is_alive(old), 60)
    new = int(running.wait_ready()["master"]["pid"])
    assert (running.folder / "cluster.pid").read_text() == f"{new}\n"
    return new


def test_an_upgrade_under_fresh_connections_refuses_none(answers):
    """No caller is refused or unanswered; the new master has pidfile, control socket and listeners."""
    running = answers(unix_socket="answers.sock")
    before = running.status()["master"]
    assert len(before["listeners"]) == 2
    pids = running.worker_pids()
    running.write_module("answers", ANSWERS.format(answer="new"))
    with Callers(running.address) as callers:
        wait_until(lambda: len(callers.answers) > 20)
        for _ in range(UPGRADES_UNDER_LOAD):
            _upgrade(running)
        wait_until(lambda: callers.answers[-20:] == ["new"] * 20)
    assert callers.faults == []
    assert set(callers.answers) == {"old", "new"}
    after = running.status()["master"]
    assert after["listeners"] == before["listeners"]
    assert (before["generation"], after["generation"]) == (1, 1 + UPGRADES_UNDER_LOAD)
    assert not any(is_alive(pid) for pid in pids)
    print(f"{len(callers.answers)} calls over fresh connections, none refused")
    refused = running.run()
    assert (refused.returncode, f"already runs with pid {after['pid']} " in refused.stderr) == (1, True)
    assert running.run("stop").returncode == 0
    assert not (running.folder / "answers.sock").exists()


def test_a_call_outlives_its_connections_next_move(held):
    """After an upgrade, too, whichever of the new master's workers it runs in: nobody takes that one for dead."""
    running = held(number_workers=3, graceful_timeout=60)
    _upgrade(running)
    pids = running.worker_pids()
    clients = [running.client_of(pid) for pid in pids]
    calls = [client.call_async("hold", gate(running)) for client in clients]
    wait_until(lambda: all(running.worker(pid)["active_calls"] for pid in pids))
    with running.launch("reload", "--all") as reload:
        wait_until(lambda: not set(pids) & set(running.worker_pids()))
        let_go(running)
        reload.communicate(timeout=60)
    assert reload.returncode == 0
    assert [call.result() for call in calls] == ["let go"] * 3
    assert not set(pids) & {client.call("pid") for client in clients}
    for client in clients:
        client.close()


def _break_service(running: RunningCluster) -> None:
    running.write_module("answers", "raise RuntimeError('sour')")


def _break_program(running: RunningCluster) -> None:
    running.write_module("sitecustomize", "import os\nos._exit(7)")


def _break_file(running: RunningCluster) -> None:
    path = running.options["control_socket"]
    running.write_config(control_socket=path, number_workers="sour")


@pytest.mark.parametrize("break_it", [_break_service, _break_program, _break_file])
def test_an_upgrade_that_cannot_start_changes_nothing(answers, break_it):
    """Promise 5: the old master goes on, with the same workers; nothing of the new one is left."""
    running = answers()
    before, descriptors = running.status(), _settled_descriptors(running)
    with Callers(running.address) as callers:
        break_it(running)
        running.signal(signal.SIGUSR2)
        running.wait_log("Upgrade failed, nothing has changed")
        wait_until(lambda: len(psutil.Process(running.master_pid).children()) == 3)  # the warden
        count = len(callers.answers)
        wait_until(lambda: len(callers.answers) > count + 20)
    assert callers.faults == []
    after = running.status()
    assert [worker["pid"] for worker in after["workers"]] == [worker["pid"] for worker in before["workers"]]
    assert after["master"]["pid"] == before["master"]["pid"]
    assert (running.folder / "cluster.pid").read_text() == f"{before['master']['pid']}\n"
    wait_until(lambda: _descriptors(running) == descriptors)  # the callers' connections are closed by then


def _descriptors(running: RunningCluster) -> list[int]:
    """How many descriptors the master has, its end of this connection included, and each worker."""
    with running.control() as control:
        status = control.call("status")
        pids = [status["master"]["pid"], *(worker["pid"] for worker in status["workers"])]
        return [psutil.Process(pid).num_fds() for pid in pids]


def _settled_descriptors(running: RunningCluster) -> list[int]:
    """The same, once it does not change any more."""
    found = [_descriptors(running)]

    def is_settled() -> bool:
        time.sleep(0.1)
        found.append(_descriptors(running))
        return len(found) > 5 and all(each == found[-1] for each in found[-5:])

    wait_until(is_settled)
    return found[-1]


def test_upgrades_in_a_row_leave_nothing_behind(answers):
    """However many upgrades: as many descriptors in master and workers as before, one master, its workers."""
    running = answers(unix_socket="answers.sock", log_file="upgrades.log", access_log="access.log")
    before = _settled_descriptors(running)
    for number in range(UPGRADES):
        new = _upgrade(running)
        assert running.status()["master"]["generation"] == number + 2
        wait_until(lambda new=new: len(psutil.Process(new).children(recursive=True)) == 3)  # the warden and the workers
    wait_until(lambda: _descriptors(running) == before)
    print(f"descriptors of master and workers before and after {UPGRADES} upgrades: {before}")


def test_a_stop_ends_an_upgrade_under_way(answers):
    """TERM while the new master boots its workers: both masters go, and a start right after succeeds."""
    running = answers()
    running.write_config(bind=running.address)
    running.write_module("answers", "import time\ntime.sleep(60)\n")
    master = psutil.Process(running.master_pid)
    running.signal(signal.SIGUSR2)
    family = wait_until(lambda: (found := master.children(recursive=True)) and len(found) == 7 and found)  # two wardens
    assert running.run("stop").returncode == 0
    running.write_module("answers", ANSWERS.format(answer="anew"))
    running.start()
    wait_until(lambda: not any(is_alive(process.pid) for process in family), within(1))


def test_a_killed_master_takes_an_upgrade_along(answers):
    """Promise 3 while the new master boots its workers: after kill -9 of the old one nothing is left."""
    running = answers()
    running.write_config(bind=running.address)
    running.write_module("answers", "import time\ntime.sleep(60)\n")
    master = psutil.Process(running.master_pid)
    running.signal(signal.SIGUSR2)
    family = wait_until(lambda: (found := master.children(recursive=True)) and len(found) == 7 and found)  # two wardens
    master.kill()
    wait_until(lambda: not any(is_alive(process.pid) for process in family), within(1))
    running.write_module("answers", ANSWERS.format(answer="anew"))
    running.start()
