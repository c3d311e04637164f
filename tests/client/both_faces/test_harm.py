"""Harm on the way: a right result or a clear error in time, never another call's."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from typing import Any, Callable

import msgpack
import pytest
from proxy import Harm, Proxy

from rpccluster.client import Client, aio
from rpccluster.errors import ConnectFailed, Lost, NotSent, RPCClusterError
from rpccluster.protocol.closing import closing_request

from ..servers import Server, reply, serve

WISH = closing_request(0)  # comes first, and is not answered
REQUEST = WISH + msgpack.packb([0, 1, "echo", ["abc"]])
REPLY = reply(1, "abc")
PAUSE_SECONDS = 0.015  # what ends a connection after the reply has to arrive before the next call is sent


def call_twice(address: str, **options: Any) -> Any:
    """The outcome of a first call, and the result of a second one."""
    with Client(address, timeout=5) as client:
        try:
            first: Any = client.call("echo", "abc", **options)
        except RPCClusterError as error:
            first = error
        time.sleep(PAUSE_SECONDS)
        return first, client.call("echo", "second")


def call_twice_on_asyncio(address: str, **options: Any) -> Any:
    async def main() -> Any:
        async with aio.Client(address, timeout=5) as client:
            try:
                first: Any = await client.call("echo", "abc", **options)
            except RPCClusterError as error:
                first = error
            await asyncio.sleep(PAUSE_SECONDS)
            return first, await client.call("echo", "second")

    return asyncio.run(main())


def future_twice(address: str, **options: Any) -> Any:
    with Client(address, timeout=5) as client:
        future = client.call_async("echo", "abc", **options)
        first = future.exception(10) or future.result()
        time.sleep(PAUSE_SECONDS)
        return first, client.call_async("echo", "second").result(10)


FACES = [call_twice, call_twice_on_asyncio, future_twice]


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("after", range(len(REQUEST)))
def test_request_cut(server: Server, face: Callable[..., Any], reset: bool, after: int) -> None:
    """Cut at any byte of the request, the call is lost, and the next one succeeds over a new connection."""
    with Proxy(server.name, lambda n: Harm(cut_request_after=after, reset=reset) if n == 0 else Harm()) as proxy:
        first, second = face(proxy.address)
    assert isinstance(first, Lost) or (after <= len(WISH) and is_unharmed(first))
    assert second == "second"


def is_unharmed(first: object) -> bool:
    """Whether that is what may also come of a connection that is cut before anything was sent."""
    return first == "abc" or isinstance(first, ConnectFailed)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("after", range(len(REPLY) + 1))
def test_reply_cut(server: Server, face: Callable[..., Any], reset: bool, after: int) -> None:
    """Cut at any byte of the reply, the call is lost; behind its last byte it has its result."""
    with Proxy(server.name, lambda n: Harm(cut_reply_after=after, reset=reset) if n == 0 else Harm()) as proxy:
        first, second = face(proxy.address)
    if after == len(REPLY) and not reset:
        assert first == "abc"
    else:
        assert (
            isinstance(first, Lost) or (after == len(REPLY) and first == "abc") or (after == 0 and is_unharmed(first))
        )
    assert second == "second"


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("after", range(len(REPLY)))
def test_idempotent_call_cut(server: Server, face: Callable[..., Any], after: int) -> None:
    """An idempotent call has its result wherever it was cut."""
    with Proxy(server.name, lambda n: Harm(cut_reply_after=after) if n == 0 else Harm()) as proxy:
        assert face(proxy.address, idempotent=True) == ("abc", "second")


@pytest.mark.parametrize("face", FACES)
def test_half_closed(server: Server, face: Callable[..., Any]) -> None:
    """When the server sees the end of the requests it still answers; when the client sees the end it connects anew."""
    length = len(REQUEST) + (4 if face is future_twice else 0)  # a msgid in its longest form
    with Proxy(server.name, lambda n: Harm(half_close_request_after=length) if n == 0 else Harm()) as proxy:
        assert face(proxy.address) == ("abc", "second")
    with Proxy(server.name, lambda n: Harm(half_close_reply_after=len(REPLY)) if n == 0 else Harm()) as proxy:
        first, second = face(proxy.address)
        assert first == "abc"
        assert second == "second"


@pytest.mark.parametrize("face", FACES)
def test_split_and_delayed(server: Server, face: Callable[..., Any]) -> None:
    """Messages that come byte by byte are whole messages."""
    with Proxy(server.name, lambda _: Harm(piece=1, delay_seconds=0.001)) as proxy:
        assert face(proxy.address) == ("abc", "second")


def test_many_calls_cut_anywhere(server: Server) -> None:
    """Of many pipelined calls under a cut each has its own result or is lost, and those that have one come first."""
    for after in range(0, 600, 37):
        with Proxy(server.name, lambda n, at=after: Harm(cut_reply_after=at, piece=64)) as proxy:
            with Client(proxy.address, timeout=5) as client:
                batch = client.batch()
                try:
                    with batch:
                        calls = [batch.call("echo", number) for number in range(100)]
                except NotSent:  # the reply to the client's own question was cut before the batch began
                    continue
            outcomes = [call.error or call.result() for call in calls]
        answered = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
        assert answered == list(range(len(answered)))
        assert all(isinstance(outcome, Lost) for outcome in outcomes[len(answered) :])


def test_reset_with_calls_of_many_threads(server: Server) -> None:
    """A connection that is reset under the calls of many threads ends each of them once."""
    with Proxy(server.name, lambda n: Harm(cut_reply_after=1, reset=True) if n == 0 else Harm()) as proxy:
        outcomes: list[object] = []
        with Client(proxy.address, timeout=5) as client:

            def work() -> None:
                try:
                    outcomes.append(client.call("linger", 0.1, "right"))
                except RPCClusterError as error:
                    outcomes.append(type(error))

            threads = [threading.Thread(target=work) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
            assert len(outcomes) == 20
            assert set(outcomes) <= {Lost, NotSent, "right"}
            assert client.call("echo", "next") == "next"


def test_linger_is_understood() -> None:
    """The proxy's resets are resets: the other end sees ECONNRESET."""
    with serve() as server, Proxy(server.name, lambda _: Harm(cut_reply_after=0, reset=True)) as proxy:
        host, port = proxy.address[len("tcp://") :].split(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(REQUEST)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
