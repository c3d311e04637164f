"""The client's own threads: none can be had, or one fails. Then a call fails at once and alone."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import resource
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from rpccluster.client import Client, Pool
from rpccluster.client.sync.calling import Calling
from rpccluster.client.sync.connection import Connection
from rpccluster.errors import CallTimeout, Lost, NotSent
from rpccluster.testing import wait_until

from ..servers import Server, reply, requests, serve

pytestmark = pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy asks for no stack of its own")


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """Nobody in this process can start a thread: there is no room for its stack."""
    before = threading.stack_size(1 << 46)
    try:
        with pytest.raises(RuntimeError):
            threading.Thread(target=int).start()
        yield
    finally:
        threading.stack_size(before)


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Nobody in this process can open anything."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture(params=[Client, Pool])
def face(request: pytest.FixtureRequest, server: Server) -> Iterator[Calling]:
    """A client or a pool of one connection, which is there."""
    face = Client(server.address) if request.param is Client else Pool([server.address], connections=1)
    with face:
        face.call("echo", "connected")
        yield face


@pytest.mark.parametrize("lack", [no_threads, no_descriptors])
def test_no_thread_for_a_future(face: Calling, server: Server, lack: Any) -> None:
    """The future ends at once, nothing was sent, and the connection's other calls go on; later ones work."""
    results: list[object] = []
    other = threading.Thread(target=lambda: results.append(face.call("linger", 0.3, "other's")))
    other.start()
    wait_until(lambda: face.pending == 1)  # type: ignore[attr-defined]
    face.call("echo", "the server has it")
    with lack():
        for idempotent in (False, True):
            future = face.call_async("echo", "future", idempotent=idempotent)
            with pytest.raises(NotSent, match="no thread can be had"):
                future.result(5)
    other.join(10)
    assert results == ["other's"]
    assert face.call_async("echo", "later").result(5) == "later"
    assert server.connections == 1


def patient(sock: Any) -> None:
    """Answer all but ``never``."""
    for message in requests(sock):
        if message[2] != "never":
            sock.sendall(reply(message[1], message[3][0]))


def test_no_thread_to_send_again() -> None:
    """A future that may be sent again ends with the error of its first attempt; a later one is sent again."""
    with serve(patient) as server, Client(server.address) as client:
        client.call("echo", "connected")
        futures = [client.call_async("never", idempotent=True) for _ in range(3)]
        client.call("echo", "the server has them")
        with no_threads():
            server.cut()
            assert all(isinstance(future.exception(5), Lost) for future in futures)
        later = client.call_async("never", idempotent=True, timeout=1)
        client.call("echo", "the server has it")
        connections = server.connections
        server.cut()
        assert isinstance(later.exception(5), CallTimeout)
        assert server.connections == connections + 1


def test_an_attempt_that_fails_otherwise(client: Client, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A future has whatever error its next attempt ends with; later ones are sent again."""

    def fail(*_: Any) -> NoReturn:
        raise ZeroDivisionError

    client.call("echo", "connected")
    spoilt = client.call_async("linger", 60, idempotent=True)
    client.call("echo", "the server has it")
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "start", fail)
        server.cut()
        assert isinstance(spoilt.exception(5), ZeroDivisionError)
    later = client.call_async("linger", 0.3, "later", idempotent=True)
    server.cut()
    assert later.result(5) == "later"


def test_a_reader_that_fails(client: Client) -> None:
    """A fault in the thread that waits for the futures ends them; the next one has another thread."""
    client.call("echo", "connected")
    connection = client._connection
    assert connection is not None
    futures = [client.call_async("sleep", 60) for _ in range(3)]
    expire = connection._calls.expire

    def fail(now: float) -> NoReturn:
        connection._calls.expire = expire  # type: ignore[method-assign]
        raise ZeroDivisionError(now)

    connection._calls.expire = fail  # type: ignore[method-assign]
    late = client.call_async("sleep", 60, timeout=1)  # has the thread look
    done = concurrent.futures.wait([*futures, late], 10).done
    assert all(isinstance(future.exception(), Lost) for future in done) and len(done) == 4
    assert client.call_async("echo", "next").result(5) == "next"
