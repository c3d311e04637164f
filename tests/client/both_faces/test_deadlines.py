"""Deadlines at the server, as clients of both faces use them where ``rpc.discover`` offers them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from rpccluster import CallTimeout, Client, Pool, RemoteError, aio, service
from rpccluster.client.core.exchange.bounded import plain_body
from rpccluster.client.core.exchange.calls import Calls
from rpccluster.client.core.exchange.outgoing import body_of, body_packer
from rpccluster.protocol.bounded import DEADLINE_PASSED
from rpccluster.protocol.closing import CLOSING
from rpccluster.protocol.codec import make_unpacker

from ..servers import reply, serve

OFFER = {"rpc.call": {}, "rpc.cancel": {}, "echo": {}}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Scripted:
    """A server that notes what comes; it answers the question as it is told, and never a call named "hang"."""

    def __init__(self, offer: Any = OFFER, error: Any = None) -> None:
        self.came: list[list[Any]] = []
        self.may_offer = threading.Event()
        self.may_offer.set()
        self._offer = offer
        self._error = error

    def __call__(self, sock: Any) -> None:
        unpacker = make_unpacker(2**28)
        with contextlib.suppress(OSError):
            while data := sock.recv(65536):
                unpacker.feed(data)
                for message in unpacker:
                    self._take(sock, message)

    def _take(self, sock: Any, message: list[Any]) -> None:
        method = message[-2]
        if method == CLOSING:
            return
        self.came.append(message)
        if method == "rpc.discover":
            threading.Thread(target=self._offer_soon, args=(sock, message[1]), daemon=True).start()
        elif message[0] == 0:
            inner = message[3] if method == "rpc.call" else message[2:]
            if inner[0] == "late":
                sock.sendall(reply(message[1], error=f"TimeoutError: {DEADLINE_PASSED}"))
            elif inner[0] != "hang":
                sock.sendall(reply(message[1], inner[1]))

    def _offer_soon(self, sock: Any, msgid: int) -> None:
        self.may_offer.wait(10)
        sock.sendall(reply(msgid, self._offer, self._error))

    @property
    def methods(self) -> list[str]:
        return [message[-2] for message in self.came]

    def wait_for(self, method: str) -> list[Any]:
        until(lambda: method in self.methods)
        return next(message for message in self.came if message[-2] == method)


@contextlib.contextmanager
def inside(call: Any) -> Iterator[None]:
    """As in a method that runs ``call``."""
    before = service._find
    service.find_calls_by(lambda: call)
    try:
        yield
    finally:
        service.find_calls_by(before)


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return found


class AioFace:
    """An asyncio client on a loop in a thread of its own, with the names of the other one."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = self._run(self._make(make))

    async def _make(self, make: Callable[[], Any]) -> Any:
        return make()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def call(self, *params: Any, **options: Any) -> Any:
        return self._run(self._client.call(*params, **options))

    def call_async(self, *params: Any, **options: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(self._client.call(*params, **options), self._loop)

    def batch(self, *calls: Any, **options: Any) -> list[Any]:
        async def run() -> list[Any]:
            async with self._client.batch(**options) as batch:
                for call in calls:
                    batch.call(*call)
            return batch.results()

        return self._run(run())

    def close(self) -> None:
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncFace:
    def __init__(self, client: Any) -> None:
        self._client = client
        self.call, self.call_async, self.close = client.call, client.call_async, client.close

    def batch(self, *calls: Any, **options: Any) -> list[Any]:
        with self._client.batch(**options) as batch:
            for call in calls:
                batch.call(*call)
        return batch.results()


FACES: dict[str, Callable[..., Any]] = {
    "threads": lambda address, **options: SyncFace(Client(address, **options)),
    "threads' pool": lambda address, **options: SyncFace(Pool(address, connections=1, **options)),
    "asyncio": lambda address, **options: AioFace(lambda: aio.Client(address, **options)),
    "asyncio's pool": lambda address, **options: AioFace(lambda: aio.Pool(address, connections=1, **options)),
}


@pytest.fixture(params=FACES)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    with contextlib.ExitStack() as stack:

        def make(server: Scripted, **options: Any) -> Any:
            client = FACES[request.param](stack.enter_context(serve(server)).address, **options)
            stack.callback(client.close)
            return client

        yield make


def offered(client: Any, server: Scripted) -> None:
    """Until the client has heard of the offer."""
    client.call("echo", 1)
    server.wait_for("rpc.discover")

    def is_known() -> bool:
        client.call("echo", 2)
        return server.methods[-1] == "rpc.call"

    until(is_known)
    server.came.clear()


def test_the_question_goes_along_with_the_first_call_that_has_a_timeout(connect: Any) -> None:
    """Never before it, and once; until it is answered, calls go plain."""
    server = Scripted()
    server.may_offer.clear()
    client = connect(server, timeout=None)
    for number in range(3):
        assert client.call("echo", number) == [number]
    assert server.methods == ["echo"] * 3
    assert client.call("echo", 4, timeout=20) == [4]
    server.wait_for("rpc.discover")
    assert client.call("echo", 5, timeout=20) == [5]
    assert client.call("echo", 6) == [6]
    assert server.methods == ["echo"] * 4 + ["rpc.discover", "echo", "echo"]
    server.may_offer.set()
    offered_after = until(lambda: client.call("echo", 7, timeout=20) == [7] and server.methods[-1] == "rpc.call")
    assert offered_after
    assert client.call("echo", 8) == [8]  # without a timeout there is no deadline
    assert server.methods[-1] == "echo"
    assert server.methods.count("rpc.discover") == 1


def test_the_deadline_is_what_is_left(connect: Any) -> None:
    server = Scripted()
    client = connect(server, timeout=7)
    offered(client, server)
    assert client.call("echo", 1, [2]) == [1, [2]]
    assert client.call("echo", timeout=3) == []
    assert client.batch(("echo", 1), ("echo", 2)) == [[1], [2]]
    assert client.call_async("echo", 3).result(20) == [3]
    assert client.call("rpc.ping") == []
    assert server.methods == ["rpc.call"] * 5 + ["rpc.ping"]
    found = [message[3] for message in server.came[:5]]
    assert [each[:2] for each in found] == [
        ["echo", [1, [2]]],
        ["echo", []],
        ["echo", [1]],
        ["echo", [2]],
        ["echo", [3]],
    ]
    left = [each[2]["timeout"] for each in found]
    assert all(most - 2 < seconds <= most for seconds, most in zip(left, (7, 3, 7, 7, 7))), left


@pytest.mark.parametrize(
    ("offer", "error"),
    [
        ({}, None),
        ({"rpc.call": {}}, None),
        ({"rpc.cancel": {}}, None),
        (["rpc.call", "rpc.cancel"], None),
        (None, "'rpc.discover' method not found"),
        (OFFER, "some error"),
        ("x", None),
        (5, None),
    ],
    ids=repr,
)
def test_a_server_that_offers_none(connect: Any, offer: Any, error: Any) -> None:
    """It gets plain calls, and no cancellation."""
    server = Scripted(offer, error)
    client = connect(server, timeout=20)
    assert client.call("echo", 1) == [1]
    server.wait_for("rpc.discover")
    for number in range(20):
        assert client.call("echo", number) == [number]
    with pytest.raises(CallTimeout):
        client.call("hang", timeout=0.05)
    assert client.call("echo", 2) == [2]
    assert set(server.methods) == {"echo", "rpc.discover", "hang"}


@pytest.mark.parametrize("way", ["call", "call_async", "batch"])
def test_a_call_that_is_given_up_is_cancelled(connect: Any, way: str) -> None:
    server = Scripted()
    client = connect(server, timeout=20)
    offered(client, server)
    with pytest.raises(CallTimeout):
        if way == "call":
            client.call("hang", timeout=0.05)
        elif way == "call_async":
            client.call_async("hang", timeout=0.05).result(20)
        else:
            client.batch(("hang",), timeout=0.05)
    assert server.wait_for("rpc.cancel") == [2, "rpc.cancel", [server.wait_for("rpc.call")[1]]]
    assert client.call("echo", 1) == [1]
    assert server.methods.count("rpc.cancel") == 1


def test_a_future_that_is_cancelled_cancels_its_call(connect: Any) -> None:
    server = Scripted()
    client = connect(server, timeout=None)
    client.call("echo", timeout=20)
    server.wait_for("rpc.discover")
    until(lambda: client.call("echo", timeout=20) == [] and server.methods[-1] == "rpc.call")
    future = client.call_async("hang")
    msgid = server.wait_for("hang")[1]
    assert future.cancel()
    assert server.wait_for("rpc.cancel") == [2, "rpc.cancel", [msgid]]
    assert client.call("echo", 1) == [1]


def test_the_servers_word_of_the_deadline_is_a_timeout(connect: Any) -> None:
    """And an error of the method with that name is none."""
    server = Scripted()
    client = connect(server, timeout=20)
    offered(client, server)
    with pytest.raises(CallTimeout):
        client.call("late")
    with pytest.raises(CallTimeout):
        client.call_async("late").result(20)
    with pytest.raises(CallTimeout):
        client.batch(("late",))
    assert "rpc.cancel" not in server.methods


def test_a_client_inside_a_call_has_what_is_left_of_it(connect: Any) -> None:
    """Its deadline, and its trace."""

    class Here:
        deadline = time.monotonic() + 5
        trace = TRACEPARENT

    server = Scripted()
    client = connect(server, timeout=60)
    offered(client, server)
    with inside(Here):
        for call in (client.call, lambda *params: client.call_async(*params).result(20)):
            assert call("echo", 1) == [1]
        assert client.batch(("echo", 2)) == [[2]]
        Here.deadline = time.monotonic() + 0.05
        with pytest.raises(CallTimeout):
            client.call("hang")
    for message in server.came[:3]:
        options = message[3][2]
        assert 0 < options["timeout"] <= 5
        assert options["trace"] == TRACEPARENT
    assert client.call("echo", 3) == [3]
    assert 20 < server.came[-1][3][2]["timeout"] <= 60


def test_a_call_that_only_just_fits_goes_plain(connect: Any) -> None:
    """What a deadline adds does not make a call too large, or too deep."""
    server = Scripted()
    client = connect(server, timeout=20, max_depth=10, max_message_size=1000)
    offered(client, server)
    deep: Any = 1
    for _ in range(8):
        deep = [deep]
    assert client.call("echo", deep) == [deep]
    assert client.call("echo", "x" * 980) == ["x" * 980]
    assert client.batch(("echo", deep), ("echo", "x" * 980)) == [[deep], ["x" * 980]]
    assert server.methods == ["echo"] * 4
    with pytest.raises(ValueError, match="max_depth"):
        client.call("echo", [deep])
    with pytest.raises(ValueError, match="max_message_size"):
        client.call("echo", "x" * 1000)


@pytest.mark.parametrize("trace", [None, TRACEPARENT])
@pytest.mark.parametrize("way", ["request", "packed"])
def test_the_body_of_a_bound_request(way: str, trace: str | None) -> None:
    """It is the plain one, for a server that may not offer deadlines."""

    class Here:
        deadline = None

    Here.trace = trace  # type: ignore[attr-defined]
    calls = Calls(100_000)
    calls._bounded.is_offered = True
    body = body_packer()("echo", (1, [2]))
    with inside(Here):
        request = calls.request("echo", (1, [2]), 3.0) if way == "request" else calls.packed_request(body, 3.0)
    assert b"rpc.call" in request
    assert body_of(request) == body
    for other in (b"", b"\xa8rpc.call\x93", body, body_packer()("rpc.call", ("x", [], {"timeout": 3}))):
        assert plain_body(other) == other


def test_an_error_named_timeout_is_the_methods(connect: Any) -> None:
    def raises(sock: Any) -> None:
        unpacker = make_unpacker(1000)
        while data := sock.recv(1000):
            unpacker.feed(data)
            for message in unpacker:
                if message[2] not in (CLOSING, "rpc.discover"):
                    sock.sendall(reply(message[1], error="TimeoutError: its own"))

    client = connect(raises, timeout=20)
    with pytest.raises(RemoteError, match="TimeoutError: its own"):
        client.call("x")
