"""Futures: they work with `concurrent.futures`, and each of them ends, whatever happens."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rpccluster.client import Client
from rpccluster.client.core.attempts import DIRECT, Attempts
from rpccluster.client.threads.deferred import Expirer
from rpccluster.client.threads.future import CallFuture
from rpccluster.errors import CallTimeout, ConnectFailed, ConnectionLost, Lost, NotSent, RemoteError
from rpccluster.testing import wait_until

from ..servers import Server, reply, requests, serve


def test_results_and_errors(client: Client) -> None:
    """A future has the result, or the error, of its call."""
    good, bad = client.call_async("sum", 1, 2), client.call_async("fail", "ValueError: no")
    assert good.result(10) == 3
    with pytest.raises(RemoteError, match="ValueError: no"):
        bad.result(10)
    assert isinstance(bad.exception(), RemoteError)


def test_many(client: Client) -> None:
    """A thousand at once get their own, in whatever order they are answered."""
    futures = {client.call_async("linger", 0.05 if n % 7 == 0 else 0.0, n): n for n in range(300)}
    futures.update({client.call_async("echo", n): n for n in range(300, 1000)})
    for future in concurrent.futures.as_completed(futures, timeout=20):
        assert future.result() == futures[future]


def test_wait(client: Client) -> None:
    """`concurrent.futures.wait` works, too."""
    slow, quick = client.call_async("linger", 0.3, "slow"), client.call_async("echo", "quick")
    done, _ = concurrent.futures.wait([slow, quick], 10, concurrent.futures.FIRST_COMPLETED)
    assert done == {quick}
    assert concurrent.futures.wait([slow, quick], 10).not_done == set()


def test_callbacks_may_call(client: Client) -> None:
    """A callback may call the same client, and wait for it: nobody holds the connection while it runs."""
    answers: list[object] = []
    done = threading.Event()

    def call_again(future: concurrent.futures.Future[object]) -> None:
        answers.append(client.call("echo", future.result()))
        client.call_async("echo", "third").add_done_callback(lambda third: (answers.append(third.result()), done.set()))

    client.call_async("linger", 0.02, "first").add_done_callback(call_again)
    assert client.call("linger", 0.1, "second") == "second"
    assert done.wait(10)
    assert answers == ["first", "third"]


def test_the_callback_of_a_call_that_times_out_holds_nobody_up(client: Client) -> None:
    """It may call and wait, as any other, and while it waits so may other threads."""
    answers: list[object] = []
    begun, goes_on, done = threading.Event(), threading.Event(), threading.Event()

    def wait_and_call(_: concurrent.futures.Future[object]) -> None:
        begun.set()
        goes_on.wait(20)
        answers.append(client.call("echo", "inner", timeout=10))
        done.set()

    client.call_async("linger", 20.0, timeout=0.1).add_done_callback(wait_and_call)
    assert begun.wait(20)
    for number in range(5):
        assert client.call("echo", number, timeout=10) == number
    goes_on.set()
    assert done.wait(20)
    assert answers == ["inner"]


def test_timeout(client: Client) -> None:
    """A future ends at its timeout although nobody waits for it, the earlier one first."""
    start, ended = time.monotonic(), []
    long, short = client.call_async("sleep", 60, timeout=0.4), client.call_async("sleep", 60, timeout=0.1)
    for future in (long, short):
        future.add_done_callback(ended.append)
    with pytest.raises(CallTimeout):
        short.result(20)
    assert time.monotonic() - start > 0.09
    with pytest.raises(CallTimeout):
        long.result(20)
    assert ended == [short, long]
    assert client.call("echo", "next") == "next"


def test_cancel(client: Client, server: Server) -> None:
    """A cancelled future is notified of, and its reply answers nobody; the connection goes on."""
    future = client.call_async("linger", 0.05, "late")
    assert future.cancel()
    assert future.cancel()
    assert concurrent.futures.wait([future], 1).done == {future}
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    assert client.pending == 0
    assert client.call("linger", 0.1, "next") == "next"
    done = client.call_async("sum", 1)
    done.result(10)
    assert not done.cancel()
    assert server.connections == 1


def test_no_server() -> None:
    """Without a server the future has the error; params that cannot be packed raise at once."""
    with serve() as server:
        address = server.address
    with Client(address) as client, pytest.raises(ConnectFailed):
        client.call_async("sum", 1).result(10)
    with serve() as server, Client(server.address) as client, pytest.raises(TypeError):
        client.call_async("echo", object())


def test_the_end_of_the_connection_ends_them(client: Client, server: Server) -> None:
    """Every pending future ends with the connection; the next call connects again."""
    client.call("sum", 1)
    futures = [client.call_async("sleep", 30) for _ in range(50)]
    server.cut()
    assert all(isinstance(future.exception(2), Lost) for future in futures)
    assert client.call_async("sum", 1, 2).result(10) == 3


def test_close_ends_them(client: Client) -> None:
    """Closing the client ends them, and its thread."""
    client.call("sum", 1)
    futures = [client.call_async("sleep", 30) for _ in range(5)]
    client.close()
    assert all(isinstance(future.exception(2), Lost) for future in futures)
    deadline = time.monotonic() + 5
    while any(thread.name == "rpccluster reader" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_idempotent() -> None:
    """A future whose call may run twice is sent again when the connection ends under it."""
    calls: list[int] = []

    def handle(sock: object) -> None:
        for message in requests(sock):  # type: ignore[arg-type]
            calls.append(message[1])
            if len(calls) < 3:
                return
            sock.sendall(reply(message[1], "done"))  # type: ignore[attr-defined]

    with serve(handle) as server, Client(server.address) as client:
        assert client.call_async("x", idempotent=True).result(10) == "done"


def test_what_was_not_sent_is_sent_again() -> None:
    """Futures that wait unsent behind a server that does not read are sent again when it goes away."""
    is_first = threading.Event()
    is_first.set()

    def handle(sock: Any) -> None:
        if is_first.is_set():  # holds less than what is sent: only the first call comes whole
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        for message in requests(sock):
            if message[0] == 2:
                continue
            if is_first.is_set():
                is_first.clear()
                sock.recv(1)  # the second call is on its way
                return
            sock.sendall(reply(message[1], len(message[3][0])))

    with serve(handle) as server, Client(server.address) as client:
        value = b"x" * 8_000_000
        client.notify("connect")  # or a thread would, and a later call might be sent before the first
        futures = [client.call_async("size", value[:size]) for size in (10, None, None, None)]
        assert isinstance(futures[0].exception(10), Lost)
        assert [future.result(10) for future in futures[2:]] == [len(value)] * 2


SERVER = """
import socket, sys, threading
from client.servers import answer
with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        sock = listener.accept()[0]
        threading.Thread(target=answer, args=(sock,), daemon=True).start()
"""


class Process:
    """A server in a process of its own, to be killed."""

    def __init__(self, port: int = 0) -> None:
        tests = Path(__file__).parent.parent.parent
        path = os.pathsep.join([str(tests), str(tests.parent)])
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(port)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.kill()


def test_killed_server(process: Process) -> None:
    """Under kill -9 of the server 1,000 pending futures end, and say whether they may have run.

    After its restart the next call succeeds without any action.
    """
    with Client(f"127.0.0.1:{process.port}", timeout=60) as client:
        client.call("sum", 1)
        futures = [client.call_async("sleep", 60, n) for n in range(1000)]
        client.call("sum", 1)  # the server has them all
        process.kill()
        start = time.monotonic()
        errors = [future.exception(20) for future in futures]
        assert time.monotonic() - start < 20
        assert all(isinstance(error, (Lost, NotSent)) for error in errors)
        with pytest.raises((ConnectFailed, ConnectionLost)):
            client.call("sum", 1)
        restarted = Process(process.port)
        try:
            assert client.call("sum", 1, 2) == 3
            assert client.call_async("sum", 1, 2).result(10) == 3
        finally:
            restarted.kill()


def test_server_killed_while_nobody_calls(process: Process) -> None:
    """A server that was killed and restarted between two calls is not noticed."""
    with Client(f"127.0.0.1:{process.port}", timeout=10) as client:
        assert client.call("sum", 1) == 1
        process.kill()
        restarted = Process(process.port)
        try:
            assert client.call("sum", 1, 2) == 3
        finally:
            restarted.kill()


def test_the_thread_that_ends_futures_ends_with_the_client() -> None:
    """Closing ends the futures that wait for a connection, and the thread does not sleep until their deadline."""

    class NoSender:
        def send(self, future: CallFuture) -> None: ...

        def send_soon(self, future: CallFuture) -> None: ...

    expirer = Expirer()
    future = CallFuture(Attempts(DIRECT, False), NoSender())
    expirer.watch(future, time.monotonic() + 3600)
    wait_until(lambda: not expirer._waker.acquire(False) and expirer._is_running.locked())
    expirer.close()
    assert isinstance(future.exception(10), NotSent)
    wait_until(lambda: not expirer._is_running.locked())
