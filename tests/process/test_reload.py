"""HUP and `reload`: new code and configuration come one worker at a time; faulty ones never take anything down."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Any

import pytest
from answering import ANSWERS
from patience import within

from rpccluster import Client
from rpccluster.testing import RunningCluster, wait_until


def _answer(running: RunningCluster) -> Any:
    with running.client() as client:
        return client.call("answer")


def _generations(running: RunningCluster) -> tuple[int, set[int]]:
    status = running.wait_ready()
    return status["master"]["generation"], {worker["generation"] for worker in status["workers"]}


class Watch:
    """Looks at the status all the time, from a thread: how few workers were ready, and which pids there were."""

    def __init__(self, running: RunningCluster) -> None:
        self._running = running
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.fewest_ready = 1_000
        self.most_workers = 0

    def _look(self) -> None:
        with self._running.control() as control:
            while not self._is_over.is_set():
                workers = control.call("status")["workers"]
                self.fewest_ready = min(self.fewest_ready, sum(worker["state"] == "ready" for worker in workers))
                self.most_workers = max(self.most_workers, sum(worker["state"] != "retiring" for worker in workers))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


def test_new_code_comes_one_worker_at_a_time(answers):
    """HUP with new code: new answers everywhere, as many ready as ever, one successor at a time."""
    running = answers(number_workers=3)
    before = running.worker_pids()
    assert _answer(running) == "old"
    running.write_module("answers", ANSWERS.format(answer="new"))
    with Watch(running) as watch:
        running.signal(signal.SIGHUP)
        wait_until(lambda: not set(before) & set(running.worker_pids()))
        assert _generations(running) == (2, {2})
    assert (watch.fewest_ready, watch.most_workers) == (3, 4)
    for pid in running.worker_pids():
        with running.client_of(pid) as client:
            assert client.call("answer") == "new"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("class Answers:\n    def __init__(self): raise OSError('no ink')", "OSError: no ink"),
        ("def broken(:", "SyntaxError"),
        ("class Answers: pass", "found no public methods in Answers"),
        ("import os; os._exit(7)", "exit code 7"),
    ],
)
def test_broken_code_leaves_the_old_workers_alone(answers, code, reason):
    """Promise 5: HUP with a service that cannot boot: same workers, same generation, the log says why."""
    running = answers()
    before = running.worker_pids()
    running.write_module("answers", code)
    running.signal(signal.SIGHUP)
    running.wait_log("Reload failed: ")
    assert reason in running.log_text()
    assert running.wait_ready() and running.worker_pids() == before
    assert _generations(running) == (1, {1})
    assert _answer(running) == "old"
    running.write_module("answers", ANSWERS.format(answer="mended"))
    assert running.run("reload", "--all").returncode == 0
    assert _answer(running) == "mended"
    assert _generations(running) == (2, {2})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"number_workers": "many"}, "number_workers: found 'many'"),
        ({"nosuchkey": 1}, "nosuchkey: "),
        ({"pidfile": "/tmp/another.pid"}, "pidfile: "),
        ({"control_socket": "/tmp/another.sock"}, "control_socket: "),
        ({"daemonize": True}, "daemonize: "),
        ({"user": "nobody"}, "user: "),
        ({"group": "nogroup"}, "group: "),
        ({"log_file": "/proc/nowhere/x.log"}, "cannot "),
        ({"bind": "tcp://127.0.0.1:0,unix:///proc/nowhere.sock"}, "cannot listen at unix:///proc/nowhere.sock"),
    ],
)
def test_a_faulty_file_leaves_the_cluster_alone(answers, changes, reason):
    """Promise 5: HUP with a fault, or a key that HUP cannot change: it is logged, nothing else happens."""
    running = answers()
    path, address = running.options["control_socket"], running.address
    before = running.worker_pids()
    running.write_config(**changes)
    running.options["control_socket"] = path
    running.signal(signal.SIGHUP)
    running.wait_log("Reload failed: ")
    assert reason in running.log_text().partition("Reload failed: ")[2]
    assert running.worker_pids() == before
    assert running.address == address
    assert _generations(running) == (1, {1})
    assert _answer(running) == "old"


def test_an_unreadable_file_leaves_the_cluster_alone(answers):
    """Promise 5: HUP when the file is gone."""
    running = answers()
    before = running.worker_pids()
    running.config.unlink()
    running.signal(signal.SIGHUP)
    running.wait_log("Reload failed: ")
    assert running.worker_pids() == before
    assert _generations(running) == (1, {1})


def test_listeners_are_added_and_dropped(answers):
    """HUP opens what `bind` adds and closes what it no longer names; what stays is never closed."""
    running = answers()
    first = running.address
    path = running.folder / "second.sock"
    running.write_config(bind=f"tcp://127.0.0.1:0,unix://{path}")
    assert running.run("reload", "--all").returncode == 0
    assert running.status()["master"]["listeners"] == [first, f"unix://{path}"]
    for address in (first, f"unix://{path}"):
        with Client(address) as client:
            assert client.call("answer") == "old"
    running.write_config(bind=f"unix://{path}")
    assert running.run("reload", "--all").returncode == 0
    assert running.address == f"unix://{path}"
    assert _answer(running) == "old"
    wait_until(lambda: _is_refused(first))
    running.write_config(bind="tcp://127.0.0.1:0")
    assert running.run("reload", "--all").returncode == 0
    assert not path.exists()
    assert _answer(running) == "old"


def _is_refused(address: str) -> bool:
    host, _, port = address.partition("//")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_successor_that_cannot_boot_stops_the_replacing(answers):
    """The first successor boots, the second does not: the rest stay as they are, and so do their answers."""
    running = answers(number_workers=3)
    before = running.worker_pids()
    running.write_module(
        "answers",
        "import pathlib\n"
        "once = pathlib.Path(__file__).with_name('once')\n"
        "assert not once.exists(), 'only once'\n"
        "once.touch()\n" + ANSWERS.format(answer="new"),
    )
    done = running.run("reload", "--all")
    assert (done.returncode, "only once" in done.stderr) == (1, True)
    status = running.wait_ready()
    assert running.worker_pids()[1:] == before[1:]
    assert [worker["generation"] for worker in status["workers"]] == [2, 1, 1]
    assert status["master"]["generation"] == 2


def test_reload_of_a_drained_cluster_says_when_workers_cannot_boot(answers):
    """The reload of a drained cluster that brings no workers ends with the reason, too."""
    running = answers()
    running.signal(signal.SIGWINCH)
    wait_until(lambda: running.status()["workers"] == [])
    running.write_module("answers", "raise RuntimeError('sour')")
    done = running.run("reload", "--all")
    assert (done.returncode, "sour" in done.stderr) == (1, True)
    running.write_module("answers", ANSWERS.format(answer="sweet"))
    assert running.run("reload", "--all").returncode == 0
    assert _answer(running) == "sweet"


def test_a_reload_mends_a_cluster_whose_workers_die_in_a_loop(answers):
    """A slot that no worker of the old configuration can fill does not keep the new one waiting."""
    running = answers()
    killed = running.worker_pids()[0]
    running.write_module("answers", "raise RuntimeError('sour')")
    os.kill(killed, signal.SIGKILL)
    running.wait_log("times in a row")
    running.write_module("better", ANSWERS.format(answer="sweet"))
    running.write_config(service="better:Answers")
    assert running.run("reload", "--all", seconds=within(10)).returncode == 0
    assert _generations(running) == (2, {2})
    assert _answer(running) == "sweet"


def test_a_drain_overtakes_a_reload(answers):
    """WINCH while a reload's first worker boots: the reload ends with the reason, and all workers go."""
    running = answers()
    running.write_module("answers", "import time\ntime.sleep(60)\n")
    with running.launch("reload", "--all") as reload:
        wait_until(lambda: len(running.status()["workers"]) == 3)
        running.signal(signal.SIGWINCH)
        _, told = reload.communicate(timeout=30)
    assert (reload.returncode, "overtaken: the cluster is drained" in told) == (1, True)
    wait_until(lambda: running.status()["workers"] == [])
    running.write_module("answers", ANSWERS.format(answer="new"))
    running.signal(signal.SIGTTIN)
    assert running.wait_ready(number_workers=1)["master"]["generation"] == 1
