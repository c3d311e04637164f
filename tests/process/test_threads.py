"""Methods in native threads and on the asyncio loop, in a real cluster: what is promised of calls holds for them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from worker_killed import WORKER_LOST

from rpccluster import RemoteError
from rpccluster.testing import RunningCluster, is_alive, wait_until

SERVICE = """
import asyncio
import ctypes
import os
import time
import rpccluster

FOLDER = os.path.dirname(os.path.abspath(__file__))
LIBC = ctypes.CDLL(None)


def is_open(name):
    return os.path.exists(os.path.join(FOLDER, name))


def note(text):
    with open(os.path.join(FOLDER, "notes"), "a") as notes:
        notes.write(text + "\\n")


def seen():
    return [rpccluster.settings.version, rpccluster.settings["price"]]


class Kinds(rpccluster.Service):
    settings = {"price": rpccluster.Setting(float, 1.0)}

    def pid(self):
        return os.getpid()

    def in_greenlet(self, name):
        before = seen()
        while not is_open(name):
            time.sleep(0.01)
        return [os.getpid(), before, seen()]

    @rpccluster.rpc(thread=True)
    def in_thread(self, name):
        before = seen()
        while not is_open(name):
            time.sleep(0.01)
        return [os.getpid(), before, seen()]

    async def on_loop(self, name):
        before = seen()
        try:
            while not is_open(name):
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            note("cleaned up")
            raise
        return [os.getpid(), before, seen()]

    @rpccluster.rpc(thread=True, timeout=0.2)
    def lost(self, name):
        call = rpccluster.current_call()
        while not is_open(name):
            LIBC.usleep(10_000)
        note(f"cancelled: {call.cancelled}")

    async def wait(self):
        await asyncio.sleep(3600)

    async def leave_a_task(self, seconds):
        async def work():
            await asyncio.sleep(seconds)
            note("the task has ended")

        self.task = asyncio.ensure_future(work())
"""
COROUTINES = 10_000 if os.environ.get("RPCCLUSTER_FULL_SCALE") else 3000
KINDS = ("in_greenlet", "in_thread", "on_loop")


@pytest.fixture
def kinds(make_cluster: Any) -> Any:
    """A cluster whose service has methods of each kind."""

    def start(**options: object) -> RunningCluster:
        running: RunningCluster = make_cluster(service="kinds:Kinds", **options)
        running.write_module("kinds", SERVICE)
        running.write_section("settings", {"price": "1"})
        return running.start()

    return start


@contextlib.contextmanager
def waiting(running: RunningCluster, pid: int, name: str) -> Iterator[list[Any]]:
    """Some connections to the worker ``pid``, with calls of each kind on each; yields their futures."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(running.client_of(pid)) for _ in range(3)]
        futures = [client.call_async(kind, name) for client in clients for kind in (*KINDS, "on_loop")]
        wait_until(lambda: running.worker(pid).get("active_calls") == len(futures), what="all wait")
        yield futures


def outcome(future: Any) -> Any:
    """The result, or the error's text."""
    try:
        return future.result(60)
    except RemoteError as error:
        return str(error)


def notes(running: RunningCluster) -> list[str]:
    """What the methods have written."""
    with contextlib.suppress(FileNotFoundError):
        return (running.folder / "notes").read_text().splitlines()
    return []


def test_calls_of_all_kinds_are_answered(kinds: Any) -> None:
    """They wait beside each other, stand in the access log, and keep their time limit."""
    running = kinds(number_workers=1, access_log="on")
    (pid,) = running.worker_pids()
    with running.client() as client:
        with waiting(running, pid, "a") as futures:
            (running.folder / "a").touch()
            assert [outcome(future) for future in futures] == [[pid, [1, 1.0], [1, 1.0]]] * len(futures)
        assert running.run("config", "set", "call_timeout=1").returncode == 0
        for future in [client.call_async(kind, "never") for kind in KINDS]:
            assert outcome(future) == "TimeoutError: the call took longer than 1 seconds"
        for kind in KINDS:
            with pytest.raises(RemoteError, match=r"^ArgumentError: "):
                client.call(kind)
    for kind in KINDS:
        wait_until(lambda kind=kind: running.log_text().count(f" {kind} ") >= 5)
    wait_until(lambda: notes(running) == ["cleaned up"])


def test_a_call_sees_one_version_of_the_settings(kinds: Any) -> None:
    """Of whatever kind it is; the next one sees the new version."""
    running = kinds(number_workers=1)
    (pid,) = running.worker_pids()
    with waiting(running, pid, "a") as futures:
        done = running.run("config", "set", "settings.price=2.5", "-c", str(running.config))
        assert done.returncode == 0, done.stderr
        with running.client() as client:
            new = [client.call_async(kind, "a") for kind in KINDS]
            wait_until(lambda: running.worker(pid)["active_calls"] == len(futures) + len(new))
            (running.folder / "a").touch()
            assert [outcome(future) for future in futures] == [[pid, [1, 1.0], [1, 1.0]]] * len(futures)
            assert [outcome(future) for future in new] == [[pid, [2, 2.5], [2, 2.5]]] * len(new)


@pytest.mark.parametrize("way", ["hup", "ttou", "upgrade"])
def test_they_outlive_the_move_of_their_connection(kinds: Any, way: str) -> None:
    """The connection goes on in another worker at once; the old worker answers its calls, each once, and ends then."""
    running = kinds(number_workers=2, graceful_timeout=60)
    leaver = running.worker_pids()[1]
    with waiting(running, leaver, "a") as futures, ThreadPoolExecutor(1) as pool:
        command = {"hup": ["reload", "--all"], "ttou": ["scale", "1"], "upgrade": ["upgrade"]}[way]
        done = pool.submit(running.run, *command)
        wait_until(lambda: running.worker(leaver).get("connections", 0) == 0, what="all have moved")
        assert not any(future.done() for future in futures)
        assert is_alive(leaver)
        (running.folder / "a").touch()
        assert [outcome(future)[0] for future in futures] == [leaver] * len(futures)
        assert done.result(90).returncode == 0
        wait_until(lambda: not is_alive(leaver), what="it ends")
    running.wait_ready()


def test_graceful_timeout_gives_all_kinds_up(kinds: Any) -> None:
    """Each is answered at once, a coroutine has time for its ``finally``, and a thread that goes on is cut off."""
    running = kinds(number_workers=1, graceful_timeout=1)
    (pid,) = running.worker_pids()
    with waiting(running, pid, "never") as futures:
        running.signal(signal.SIGHUP)
        assert {outcome(future) for future in futures} == {"WorkerRetired: its graceful_timeout is over"}
        wait_until(lambda: not is_alive(pid), what="it ends")
    assert notes(running) == ["cleaned up"] * 6
    running.wait_log("the thread of method in_thread")
    assert "Killing worker" not in running.log_text()


def test_what_dies_with_its_worker_is_lost(kinds: Any) -> None:
    """The callers are told, also those whose connection has moved."""
    running = kinds(number_workers=2, graceful_timeout=60)
    stayer, leaver = running.worker_pids()
    with waiting(running, leaver, "never") as moved, waiting(running, stayer, "never") as futures:
        running.signal(signal.SIGTTOU)
        wait_until(lambda: running.worker(leaver).get("connections", 0) == 0, what="all have moved")
        os.kill(leaver, signal.SIGKILL)
        assert {outcome(future) for future in moved} == {WORKER_LOST}
        os.kill(stayer, signal.SIGKILL)
        assert all(isinstance(future.exception(30), Exception) for future in futures)
    running.wait_ready(number_workers=1)


def test_a_worker_that_has_lost_half_its_threads_is_replaced(kinds: Any) -> None:
    """Its callers are answered, its connections go on, and what the threads do is waited for."""
    running = kinds(number_workers=1, threads=4, graceful_timeout=60)
    (pid,) = running.worker_pids()
    with running.client() as client:
        first = client.call_async("lost", "found")
        assert outcome(first) == "TimeoutError: the call took longer than 0.2 seconds"
        wait_until(lambda: running.worker(pid).get("threads_lost") == 1)
        assert client.call("pid") == pid
        second = client.call_async("lost", "found")
        assert outcome(second) == "TimeoutError: the call took longer than 0.2 seconds"
        running.wait_log("wants to retire: half of its threads are lost")
        wait_until(lambda: client.call("pid") != pid)
        (running.folder / "found").touch()
        wait_until(lambda: not is_alive(pid), what="it ends")
    assert "2 of 4 threads go on with calls that are over: lost (2)" in running.log_text()
    assert notes(running) == ["cancelled: True"] * 2
    assert "Cut off" not in running.log_text()


def test_tasks_that_calls_leave_behind_are_waited_for(kinds: Any) -> None:
    """Within graceful_timeout."""
    running = kinds(number_workers=1, graceful_timeout=10)
    with running.client() as client:
        client.call("leave_a_task", 0.7)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert notes(running) == ["the task has ended"]
    assert "Cut off" not in running.log_text()


BAD = """
import rpccluster


class Kinds:
    @rpccluster.rpc(thread=True)
    async def go(self):
        pass
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BAD, "found the coroutine method 'go' marked with thread=True, expected a plain method"),
        (BAD.replace("thread", "later"), "found the coroutine method 'go' marked with later=True"),
        (BAD.replace("pass", "yield"), "found the asynchronous generator 'go', expected a method that returns one"),
        (BAD.replace("thread=True", "thread=True, later=True"), "found later=True beside thread=True"),
    ],
)
def test_what_can_run_nowhere_is_a_fault_of_the_start(make_cluster: Any, text: str, reason: str) -> None:
    """It ends with code 4 and says what to do."""
    running: RunningCluster = make_cluster(service="kinds:Kinds", number_workers=1)
    running.write_module("kinds", text)
    process = running.launch()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, reason in errors + running.log_text()) == (4, True), errors


def test_a_full_kind_holds_back_its_own_calls_alone(kinds: Any) -> None:
    """While no greenlet is free, or no thread, calls of the other kinds are answered."""
    running = kinds(number_workers=1, max_greenlets=1, threads=1, thread_queue=0)
    (running.folder / "open").touch()
    with running.client() as client:
        waiting_greenlets = [client.call_async("in_greenlet", "a") for _ in range(3)]
        waiting_threads = [client.call_async("in_thread", "b") for _ in range(3)]
        wait_until(lambda: running.status()["workers"][0]["limits"]["thread_queue"] >= 2)
        assert client.call("on_loop", "open")
        (running.folder / "b").touch()
        assert all(outcome(future) for future in waiting_threads)
        assert client.call("in_thread", "open")
        assert not any(future.done() for future in waiting_greenlets)
        (running.folder / "a").touch()
        assert all(outcome(future) for future in waiting_greenlets)


BARE = """
import asyncio

from rpccluster import system
from rpccluster.worker.native.before_patch import make_loop


async def wait():
    await asyncio.sleep(3600)


async def main():
    await asyncio.sleep(0)
    before = system.resident_bytes()
    tasks = [asyncio.ensure_future(wait()) for _ in range(int(sys.argv[1]))]
    await asyncio.sleep(0.1)
    print(system.resident_bytes() - before, flush=True)
    os._exit(0)


import os, sys
make_loop().run_until_complete(main())
"""


def test_thousands_of_waiting_coroutines_take_little_memory(kinds: Any) -> None:
    """Less than 1 KiB each beside what asyncio takes; before Python 3.11 a frame is an object, and that takes more."""
    command = [sys.executable, "-c", BARE, str(COROUTINES)]
    bare = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    running = kinds(number_workers=1, max_greenlets=COROUTINES, max_pending_calls=COROUTINES)
    (pid,) = running.worker_pids()
    with running.client() as client:
        client.call("in_greenlet", "")
        wait_until(lambda: running.worker(pid)["rss_bytes"])
        before = psutil.Process(pid).memory_info().rss
        for _ in range(COROUTINES):
            client.notify("wait")
        wait_until(lambda: running.worker(pid)["active_calls"] == COROUTINES)
        each = (psutil.Process(pid).memory_info().rss - before - int(bare.stdout)) / COROUTINES
    assert each < (1024 if sys.version_info >= (3, 11) else 1536), (each, int(bare.stdout) / COROUTINES)


def test_the_limits_of_threads_change_live(kinds: Any) -> None:
    """The worker stays, and calls that were held back begin."""
    running = kinds(number_workers=1, threads=1, thread_queue=0)
    (pid,) = running.worker_pids()
    with running.client() as client:
        futures = [client.call_async("in_thread", "a") for _ in range(4)]
        wait_until(lambda: running.worker(pid)["limits"]["thread_queue"] >= 3)
        assert running.worker(pid)["active_calls"] == 1
        running.write_config(threads=2, thread_queue=2)
        assert running.run("reload").returncode == 0
        wait_until(lambda: running.worker(pid)["active_calls"] == 4)
        (running.folder / "a").touch()
        assert [outcome(future)[0] for future in futures] == [pid] * 4
