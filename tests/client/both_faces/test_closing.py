"""A server that says, before it closes a connection, what it will still answer: all else is sent again."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any, Callable

import pytest

from rpccluster.client import Client, aio
from rpccluster.client.core.exchange.call import Call, CallState
from rpccluster.client.core.exchange.calls import Calls
from rpccluster.client.core.exchange.outgoing import body_of, body_packer
from rpccluster.errors import Lost, NotSent
from rpccluster.protocol.closing import CLOSING, closing_response
from rpccluster.protocol.codec import make_unpacker

from ..servers import answer, reply, serve


def by_call(address: str) -> Any:
    with Client(address, timeout=10) as client:
        return client.call("x")


def by_future(address: str) -> Any:
    with Client(address, timeout=10) as client:
        return client.call_async("x").result(10)


def by_batch(address: str) -> Any:
    with Client(address, timeout=10) as client:
        with client.batch() as batch:
            call = batch.call("x")
        return call.result()


def by_aio(address: str) -> Any:
    async def main() -> Any:
        async with aio.Client(address, timeout=10) as client:
            return await client.call("x")

    return asyncio.run(main())


def first_two(sock: socket.socket) -> tuple[int, int]:
    """The msgids of the wish and of the first call."""
    unpacker = make_unpacker(1000)
    messages: list[Any] = []
    while len(messages) < 2:
        unpacker.feed(sock.recv(1000))
        messages += unpacker
    assert messages[0][2:] == [CLOSING, []]
    return messages[0][1], messages[1][1]


FACES = [by_call, by_future, by_batch, by_aio]
each_face = pytest.mark.parametrize("face", FACES)


def scripted(*handlers: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    """Each connection has the next handler."""
    left = list(handlers)
    return lambda sock: left.pop(0)(sock)


def answers(sock: socket.socket) -> None:
    _, msgid = first_two(sock)
    sock.sendall(reply(msgid, "answered"))
    sock.recv(1000)


@each_face
def test_what_was_not_read_is_sent_again(face: Callable[[str], Any]) -> None:
    """However the connection ends after the word."""

    def closes(sock: socket.socket) -> None:
        wish, _ = first_two(sock)
        sock.sendall(closing_response(wish, []))

    def stays(sock: socket.socket) -> None:
        closes(sock)
        over.wait(10)

    over = threading.Event()
    with serve(scripted(closes, stays, answers)) as server:
        assert face(server.address) == "answered"
        over.set()
        assert server.connections == 3


@each_face
def test_what_was_read_is_waited_for(face: Callable[[str], Any]) -> None:
    """It has its reply, and is lost without one."""

    def answers_late(sock: socket.socket) -> None:
        wish, msgid = first_two(sock)
        sock.sendall(closing_response(wish, [msgid]))
        sock.sendall(reply(msgid, "late"))

    def breaks(sock: socket.socket) -> None:
        wish, msgid = first_two(sock)
        sock.sendall(closing_response(wish, [msgid]))

    with serve(scripted(answers_late, breaks)) as server:
        assert face(server.address) == "late"
        with pytest.raises(Lost):
            face(server.address)


@each_face
def test_a_server_that_does_not_know_the_wish(face: Callable[[str], Any]) -> None:
    """It says that there is no such method, or answers whatever it likes: then a call without a reply is lost."""

    def old(sock: socket.socket) -> None:
        wish, _ = first_two(sock)
        sock.sendall(reply(wish, error=f"'{CLOSING}' method not found"))

    def agreeable(sock: socket.socket) -> None:
        wish, _ = first_two(sock)
        sock.sendall(reply(wish, []))

    with serve(scripted(old, agreeable)) as server:
        for _ in range(2):
            with pytest.raises(Lost):
                face(server.address)


def test_an_idle_connection_on_asyncio_is_closed_at_the_word() -> None:
    """With no call pending there is nothing to keep it open for: the server need not wait for its end."""
    ended = threading.Event()

    def handle(sock: socket.socket) -> None:
        wish, msgid = first_two(sock)
        sock.sendall(reply(msgid, "answered") + closing_response(wish, []))
        while sock.recv(1000):
            pass
        ended.set()

    async def main() -> None:
        client = aio.Client(server.address)
        assert await client.call("x") == "answered"
        assert await asyncio.get_running_loop().run_in_executor(None, ended.wait, 10)
        await client.close()

    with serve(handle) as server:
        asyncio.run(main())


def test_new_calls_take_another_connection_at_once() -> None:
    """While one that was read is still waited for, on the old one."""
    may_answer = threading.Event()

    def closes(sock: socket.socket) -> None:
        wish, msgid = first_two(sock)
        sock.sendall(closing_response(wish, [msgid]))
        may_answer.wait(10)
        sock.sendall(reply(msgid, "slow"))

    with serve(scripted(closes, answers)) as server, Client(server.address, timeout=10) as client:
        slow = client.call_async("x")
        while client.pending == 0 or client.is_connected:
            time.sleep(0.001)
        assert client.call("x") == "answered"
        assert client.pending == 1
        may_answer.set()
        assert slow.result(10) == "slow"


def test_a_future_that_is_sent_again_has_the_params_it_was_given() -> None:
    """Over a connection that was there, too: what its caller does with them afterwards changes nothing."""
    may_close = threading.Event()

    def closes(sock: socket.socket) -> None:
        unpacker = make_unpacker(1000)
        wish = None
        while True:
            unpacker.feed(sock.recv(1000))
            for _, msgid, method, _ in unpacker:
                if method == CLOSING:
                    wish = msgid
                elif method == "hello":
                    sock.sendall(reply(msgid))
                elif method == "rpc.discover":
                    continue
                else:
                    may_close.wait(10)
                    return sock.sendall(closing_response(wish or 0, []))

    with serve(scripted(closes, answer)) as server, Client(server.address, timeout=10) as client:
        for _ in range(300):  # until its msgid takes more than a byte
            client.call("hello")
        params = [1]
        future = client.call_async("echo", params)
        params.append(2)
        may_close.set()
        assert future.result(10) == [1]


@pytest.mark.parametrize("size", [1, 100, 200, 300, 70_000])
def test_the_body_of_a_request(size: int) -> None:
    """Whatever its msgid takes."""
    calls = Calls(1000)
    for _ in range(size):
        request = calls.request("x", (1, [2]))
    assert body_of(request) == body_packer()("x", (1, [2]))


def test_closing_the_client_ends_calls_of_the_old_connection_too() -> None:
    """None is left pending."""

    def closes(sock: socket.socket) -> None:
        wish, msgid = first_two(sock)
        sock.sendall(closing_response(wish, [msgid]))
        while sock.recv(1000):
            pass

    with serve(scripted(closes, answers)) as server, Client(server.address, timeout=10) as client:
        slow = client.call_async("x")
        while client.pending == 0 or client.is_connected:
            time.sleep(0.001)
        assert client.call("x") == "answered"
        client.close()
        assert isinstance(slow.exception(10), Lost)


@pytest.mark.parametrize("face", ["threads", "asyncio"])
def test_the_word_of_a_connection_that_takes_no_more_calls(face: str) -> None:
    """It is heeded after the connection was set aside, too: what was not read is sent again."""

    def closes(sock: socket.socket) -> None:
        wish, _ = first_two(sock)
        is_read.set()
        is_aside.wait(10)
        sock.sendall(closing_response(wish, []))

    async def main() -> Any:
        async with aio.Client(server.address, timeout=10) as client:
            call = client.call_async("x")
            await asyncio.get_running_loop().run_in_executor(None, is_read.wait, 10)
            client.set_aside()
            is_aside.set()
            return await call

    def by_threads() -> Any:
        with Client(server.address, timeout=10) as client:
            future = client.call_async("x")
            is_read.wait(10)
            client.set_aside()
            is_aside.set()
            return future.result(10)

    is_read, is_aside = threading.Event(), threading.Event()
    with serve(scripted(closes, answers)) as server:
        assert (asyncio.run(main()) if face == "asyncio" else by_threads()) == "answered"


@pytest.mark.parametrize("end", ["answered", "timed out", "cancelled"])
def test_what_was_set_aside_is_closed_after_its_last_call(end: str) -> None:
    """However that call ends; on asyncio no descriptor is left to whoever has forgotten the connection."""

    async def main() -> None:
        async with aio.Client(server.address, timeout=10) as client:
            call = client.call_async("x", timeout=0.3 if end == "timed out" else 10)
            assert await loop.run_in_executor(None, is_read.wait, 10)
            client.set_aside()
            if end == "answered":
                may_answer.set()
            if end == "cancelled":
                call.cancel()
            await asyncio.wait({call})
            assert await loop.run_in_executor(None, is_closed.wait, 5)

    def answers_late(sock: socket.socket) -> None:
        _, msgid = first_two(sock)
        is_read.set()
        if end == "answered":
            may_answer.wait(10)
            sock.sendall(reply(msgid))
        while sock.recv(1000):
            pass
        is_closed.set()

    is_read, may_answer, is_closed = threading.Event(), threading.Event(), threading.Event()
    with serve(answers_late) as server:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()


def test_the_core() -> None:
    """By the word alone: those it names stay, all others end; none is dropped."""
    calls = Calls(1000)
    calls.closing_request()
    wish, pending = calls.msgid, []
    for _ in range(3):
        calls.request("x", ())
        pending.append(Call())
        calls.begin(pending[-1], calls.msgid, 0)
    assert calls.receive(reply(pending[0].msgid, 1) + closing_response(wish, [pending[1].msgid])) == [pending[0]]
    assert calls.cut_unread("over") == [pending[2]]
    assert isinstance(pending[2].error, NotSent)
    assert calls.cut(1, "over") == [pending[1]]
    assert pending[1].state is CallState.LOST
    assert calls.dropped == 0
