"""A fork that Python is not told of, as uWSGI's master makes it: the child's clients connect anew, too."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from rpccluster.client import Client, Pool, aio
from rpccluster.client.threads import forks as forks_module
from rpccluster.client.threads.forks import MARK
from rpccluster.compat import msgpackrpc
from rpccluster.errors import Lost
from rpccluster.testing import wait_until

pytestmark = pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy does not survive such a fork")

# Such a fork copies what the interpreter's other threads hold: as with uWSGI's master, there are none that do anything,
# so the server is another process.
SERVER = """
import sys, threading
from client.servers import reply, requests, serve

def handle(sock):
    for kind, msgid, method, params in (message for message in requests(sock) if message[0] == 0):
        answer = reply(msgid, server.connections if method == "connections" else params[-1])
        threading.Timer(params[0] if method == "linger" else 0, sock.sendall, [answer]).start()

with serve(handle) as server:
    print(*server.name, flush=True)
    sys.stdin.read()
"""
_libc = ctypes.PyDLL(None)  # holds the GIL, so that the child has it


def _fork() -> int:
    time.sleep(0.05)  # none of this process's threads takes or gives the GIL meanwhile
    return int(_libc.fork())


def in_child(work: Callable[[], object]) -> None:
    """Run ``work`` in a child that Python takes for its parent; fail if it does not come to its end."""
    pid = _fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    wait_for(pid)


def wait_for(pid: int) -> None:
    """Wait until the child has ended well."""
    ended = (0, 0)

    def has_ended() -> bool:
        nonlocal ended
        ended = os.waitpid(pid, os.WNOHANG)
        return ended[0] == pid

    try:
        wait_until(has_ended)
    finally:
        if ended[0] != pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert ended[1] == 0


def _by_batch(client: Any, value: object) -> object:
    with client.batch() as batch:
        batch.call("echo", value)
    return batch.results()[0]


def _by_future(client: Any, value: object) -> object:
    return client.call_async("echo", value).result(10)


def _by_notification(client: Any, value: object) -> object:
    client.notify("echo", value)
    return client.call("echo", value)


WAYS: dict[str, Callable[[Any, object], object]] = {
    "call": lambda client, value: client.call("echo", value),
    "batch": _by_batch,
    "future": _by_future,
    "notification": _by_notification,
}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """Where a server in another process listens."""
    tests = Path(__file__).parent.parent.parent
    path = os.pathsep.join([str(tests), str(tests.parent)])
    command = [sys.executable, "-c", SERVER]
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stdin is not None
        host, port = process.stdout.readline().decode().split()
        yield host, int(port)
        process.stdin.close()


@pytest.fixture(params=[Client, Pool])
def face(request: pytest.FixtureRequest, server: tuple[str, int]) -> Iterator[Any]:
    """A client or a pool of one connection, which is there."""
    address = "{}:{}".format(*server)
    face = Client(address) if request.param is Client else Pool([address], connections=1)
    with face:
        face.call("echo", "connected")
        yield face


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_call(face: Any, way: str) -> None:
    """The child's first call, however made, is over a connection of its own; the parent's stays as it was."""

    def work() -> None:
        for number in range(20):
            assert WAYS[way](face, [number, "child's"]) == [number, "child's"]

    before = face.call("connections", 0)
    for count in (1, 2):
        in_child(work)
        for number in range(20):
            assert WAYS[way](face, [number, "parent's"]) == [number, "parent's"]
        assert face.call("connections", 0) == before + count


def test_both_call_at_once(face: Any) -> None:
    """Parent and child call at the same time, and every result is its caller's own."""
    pid = _fork()
    value = ["parent's" if pid else "child's"]
    wrong = sum(face.call("echo", [*value, number]) != [*value, number] for number in range(2000))
    if not pid:
        os._exit(min(wrong, 100))
    wait_for(pid)
    assert wrong == 0


def test_pending_futures(face: Any) -> None:
    """The child's copies of futures end when they are asked for, or with its first call; the parent's have results."""
    futures = [face.call_async("linger", 1, number) for number in range(3)]
    face.call("linger", 0.05, "the thread that reads has come to rest")
    in_child(lambda: isinstance(futures[0].exception(10), Lost) or os._exit(2))
    in_child(lambda: futures[1].result(0) if not isinstance(futures[1].exception(10), Lost) else None)

    def call_first() -> None:
        face.call("echo", "child's")
        assert all(future.done() for future in futures)

    in_child(call_first)
    in_child(lambda: futures[2].cancel())
    assert [future.result(10) for future in futures] == [0, 1, 2]


def test_closing_in_the_child(face: Any) -> None:
    """It is the child's matter alone."""
    before = face.call("connections", 0)
    future = face.call_async("linger", 0.5, "parent's")
    face.call("linger", 0.05, "the thread that reads has come to rest")
    in_child(face.close)
    assert future.result(10) == "parent's"
    assert face.call("echo", "next") == "next"
    assert face.call("connections", 0) == before


def test_the_old_library_s_client(server: tuple[str, int]) -> None:
    """The same over the old names."""
    client = msgpackrpc.Client(msgpackrpc.Address(*server), unpack_encoding="utf-8")
    assert client.call("echo", "connected") == "connected"
    in_child(lambda: client.call("echo", "child's") == "child's" or os._exit(2))
    assert client.call("echo", "parent's") == "parent's"
    client.close()


def test_on_asyncio(server: tuple[str, int]) -> None:
    """The child's own loop has its own connection."""
    client = aio.Client("{}:{}".format(*server))
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(client.call("echo", "connected")) == "connected"
    in_child(lambda: asyncio.run(client.call("echo", "child's")) == "child's" or os._exit(2))
    assert loop.run_until_complete(client.call("echo", "parent's")) == "parent's"
    loop.run_until_complete(client.close())
    loop.close()


def test_where_the_kernel_wipes_nothing() -> None:
    """Older kernels than Linux 4.14: the process's id is compared instead."""
    assert MARK[0]
    mark = forks_module._Process()
    assert not mark[0]
    mark[0] = 1
    assert mark[0]
    in_child(lambda: os._exit(3) if mark[0] or MARK[0] else None)
