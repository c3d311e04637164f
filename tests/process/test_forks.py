"""Processes that a service makes: a child holds nothing of its worker, and does not outlive it unless it says so."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from strace import injected

from rpccluster.testing import RunningCluster, is_alive, title_of, wait_until

SERVICE = """
import json, multiprocessing, os, signal, socket, subprocess, sys, threading, time
from concurrent.futures import ProcessPoolExecutor

import gevent
from rpccluster import Service

class Forking(Service):
    def worker_started(self, worker):
        self.lock = threading.Lock()

    def pid(self):
        return os.getpid()

    def mark(self, path, seconds):
        time.sleep(seconds)
        with open(path, "a") as file:
            file.write(f"{os.getpid()} ")

    def fork(self, folder):
        pair = socket.socketpair()
        pid = os.fork()
        if pid:
            return pid
        try:
            said = self._use_gevent(pair)
            with open(f"{folder}/said", "w") as file:
                json.dump(said, file)
            while not os.path.exists(f"{folder}/go"):
                time.sleep(0.01)
        finally:
            os._exit(0)

    def _use_gevent(self, pair):
        said = {"spawned": gevent.spawn(str, 5).get()}
        with self.lock:
            received = gevent.spawn(pair[0].recv, 5)
            pair[1].sendall(b"hello")
            said["received"] = received.get(timeout=5).decode()
        said["program"] = subprocess.run(["echo", "hello"], capture_output=True, text=True).stdout
        said["pool"] = gevent.get_hub().threadpool.apply(str, (5,))
        said["address"] = socket.getaddrinfo("localhost", 80)[0][4][1]
        return said

    def come_back(self, code):
        pid = os.fork()
        if pid == 0:
            if code is None:
                return "from the child"
            time.sleep(0.01)
            sys.exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def process(self, seconds):
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(seconds,))
        process.start()
        if seconds:
            process.terminate()
        process.join()
        return process.exitcode

    def pool(self):
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
            return list(pool.map(abs, [-1, -2, -3]))

    def leave_behind(self):
        forked = os.fork()
        if forked == 0:
            time.sleep(100)
            os._exit(0)
        run = subprocess.Popen(["sleep", "100"])
        daemon = subprocess.Popen(["sleep", "100"], start_new_session=True)
        return [forked, run.pid, daemon.pid]

    def shell(self, script):
        return subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout
"""


@pytest.fixture
def forking(make_cluster) -> RunningCluster:
    """A cluster of one worker that runs the service above."""
    running = make_cluster(
        {"NOTIFY_SOCKET": "/nowhere", "LISTEN_PID": "1", "RPCCLUSTER_CMD_ARGS": "--log-level debug"},
        service="forking:Forking",
        number_workers=1,
    )
    running.write_module("forking", SERVICE)
    return running.start()


def sockets_of(pid: int) -> set[str]:
    """The sockets that a process holds."""
    links = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.add(os.readlink(descriptor))
    return {link for link in links if link.startswith("socket:")}


def test_a_forked_child_holds_nothing_of_its_worker(forking, tmp_path):
    """It answers nobody, accepts nobody, runs no call a second time and takes no order; gevent works in it."""
    (worker,) = forking.worker_pids()
    marks, said = tmp_path / "marks", tmp_path / "said"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(forking.client(10)) for _ in range(6)]
        assert {client.call("pid") for client in clients} == {worker}
        under_way = [client.call_async("mark", str(marks), 0.3) for client in clients[:3]]
        before = sockets_of(worker)
        with clients[3].batch() as batch:
            batch.call("fork", str(tmp_path))
            batch.call("mark", str(marks), 0)  # waits for its turn when the other one forks
        child, _ = batch.results()
        wait_until(lambda: said.exists() and said.stat().st_size, what="the child has used gevent")
        assert json.loads(said.read_text()) == {
            "spawned": "5",
            "received": "hello",
            "program": "hello\n",
            "pool": "5",
            "address": 80,
        }
        answers = Counter(client.call("pid") for _ in range(20) for client in clients)
        assert answers == {worker: 120}
        clients += [stack.enter_context(forking.client(10)) for _ in range(6)]
        assert {client.call("pid") for client in clients} == {worker}
        assert not before & sockets_of(child)
        assert title_of(child) == "rpccluster: child of worker 0 [rpccluster]"
        assert [call.result(5) for call in under_way] == [None] * 3
        forking.run("reload", "--all")
        (successor,) = forking.worker_pids()
        assert {client.call("pid") for client in clients} == {successor} != {worker}
        wait_until(lambda: not is_alive(child), what="the worker's child has gone with it")
        assert marks.read_text().split() == [str(worker)] * 4
    assert "ERROR" not in forking.log_text()
    assert "Worker crashed" not in forking.log_text()


def test_a_forked_child_that_comes_back_is_at_its_end(forking):
    """Its method's result is nobody's; `sys.exit` means what it says; the caller has one reply."""
    with forking.client(10) as client:
        assert [client.call("come_back", code) for code in (None, 0, 7)] == [0, 0, 7]
        assert client.call("process", 0) == 0
        assert client.call("process", 20) == -signal.SIGTERM
        assert client.call("pool") == [1, 2, 3]
        assert client.call("pid") == forking.worker_pids()[0]
    assert forking.status()["workers"][0]["errors"] == 0
    assert "Traceback" not in forking.log_text()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_the_process_group_ends_with_its_worker(forking, signum):
    """However that ends; a session of its own is the way to outlive it."""
    (worker,) = forking.worker_pids()
    with forking.client(10) as client:
        forked, run, daemon = client.call("leave_behind")
    try:
        os.kill(worker, signum)
        wait_until(lambda: not is_alive(worker))
        wait_until(lambda: not is_alive(forked) and not is_alive(run))
        assert is_alive(daemon)
    finally:
        for pid in (forked, run, daemon):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_program_that_a_service_runs_is_told_nothing_that_is_ours(forking):
    """Signals mean to it what they mean to anybody, and the environment is the user's."""
    with forking.client(10) as client:
        for name in ("HUP", "USR1", "USR2", "WINCH", "TERM", "INT"):
            assert client.call("shell", f"trap 'echo {name}' {name}; kill -{name} $$") == f"{name}\n"
        ignored = client.call("shell", "grep SigIgn /proc/self/status").split()[1]
        assert int(ignored, 16) == 0
        assert client.call("shell", "env | grep -c -e ^NOTIFY_ -e ^LISTEN_ -e ^RPCCLUSTER_") == "0\n"
    (worker,) = forking.worker_pids()
    for signum in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
        os.kill(worker, signum)
    with forking.client(10) as client:
        assert client.call("pid") == worker


FORKS_AT_BOOT = """
import os, time
from rpccluster import Service

os.fork()

class AtBoot(Service):
    def worker_started(self, worker):
        os.fork()

    def worker_stopping(self, worker):
        os.fork()

    def pid(self):
        return os.getpid()

    def grandchild(self):
        child = os.fork()
        if child == 0:
            descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(30)]
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(sum(1 for descriptor in descriptors if os.fstat(descriptor)))
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def test_a_fork_at_any_time_of_a_workers_life_is_one_worker(make_cluster):
    """A child that comes back from the service's import or hooks ends in silence; a child's own child keeps its all."""
    running = make_cluster(service="atboot:AtBoot", number_workers=1)
    running.write_module("atboot", FORKS_AT_BOOT)
    (worker,) = running.start().worker_pids()
    with running.client(10) as client:
        assert client.call("grandchild") == 30
        assert {client.call("pid") for _ in range(10)} == {worker}
        assert running.run("reload", "--all").returncode == 0
        assert client.call("pid") != worker
    running.wait_log(f"Worker exiting (pid: {worker})")
    assert not [line for line in running.log_text().splitlines() if "[ERROR]" in line or "[CRITICAL]" in line]


FORKS_BEHIND_A_WAIT = """
import os
from rpccluster.worker.process.forks import Forks
Forks("child")
from gevent import monkey, socket
monkey.patch_all()
from gevent import get_hub

get_hub().loop.install_sigchld()
reading, writing = os.pipe()
os.write(writing, b"x")
print("ready", flush=True)
monkey.get_original("os", "read")(0, 1)
socket.wait_read(reading)
child = os.fork()
if child == 0:
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(7)
    os.waitid(os.P_PID, grandchild, os.WEXITED | os.WNOWAIT)  # the signal has come before the loop waits
    os._exit(os.WEXITSTATUS(os.waitpid(grandchild, 0)[1]))
print(os.WEXITSTATUS(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace(1) here")
def test_a_signal_at_the_end_of_the_loops_wait_makes_no_child_deaf(tmp_path: Path) -> None:
    """It wakes the parent's next wait, and the child has another descriptor; the child hears of its own child."""
    command = [sys.executable, "-c", FORKS_BEHIND_A_WAIT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == "ready\n"
            with injected(program.pid, "/^epoll_p*wait", "signal=SIGCHLD:when=1", tmp_path / "calls"):
                told, _ = program.communicate("x", timeout=60)
        finally:
            program.kill()
    assert told == "7\n"
