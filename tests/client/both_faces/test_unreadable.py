"""A reply that cannot be read is an error of its own call; a call that no server could take is not sent at all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import msgpack
import pytest

import rpccluster.compat.msgpackrpc as msgpackrpc
from rpccluster.client import Client, Pool, aio
from rpccluster.client.core.exchange import outgoing
from rpccluster.client.core.exchange.call import Call
from rpccluster.client.core.exchange.calls import Calls
from rpccluster.client.core.exchange.outgoing import body_packer
from rpccluster.errors import ProtocolError
from rpccluster.protocol.outline import Bounds, depth_exceeds

from ..faces import FACES, call_by
from ..servers import Server, reply, requests, serve

LIMIT = 200_000
HEAD = b"\x94\x01%c\xc0"


def nested(depth: int) -> Any:
    """``depth`` lists in each other."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


#: Results, packed, and what is said of those that cannot be read.
UNREADABLE = {
    "too large": (msgpack.packb(bytes(LIMIT + 100_000)), f"more than {LIMIT} bytes"),
    "too many": (msgpack.packb([1.5] * LIMIT), f"more than {LIMIT} bytes"),
    "a map as a key": (b"\x81\x80\x01", "a map with a map in a key"),
    "a map as a key behind much": (b"\x92" + msgpack.packb(bytes(100_000)) + b"\x81\x80\x01", "a map with a map"),
    "a bad timestamp": (b"\xd7\xff" + b"\xff" * 8, "not MessagePack"),
    "an ext type below zero": (b"\xd4\x85\x00", "not MessagePack"),
}


def pieces_of(data: bytes) -> Iterator[list[bytes]]:
    """Several ways to cut it, as a socket might."""
    for first in (0, 1, 5, 20, 60_000):
        yield [data[:first], *(data[at : at + 65_536] for at in range(first, len(data), 65_536))][not first :]
    if len(data) < 200:
        yield [bytes([byte]) for byte in data]


def begin(calls: Calls) -> Call:
    call = Call()
    calls.request("m", ())
    calls.begin(call, calls.msgid, 0)
    return call


@pytest.mark.parametrize("name", UNREADABLE)
def test_it_ends_its_own_call(name: str) -> None:
    """Those before it and behind it have their results, whatever the pieces."""
    packed, why = UNREADABLE[name]
    for pieces in pieces_of(reply(0, "before") + HEAD % 1 + packed + reply(2, "behind") + HEAD % 3 + packed):
        calls = Calls(LIMIT)
        pending = [begin(calls) for _ in range(5)]
        ended = [call for piece in pieces for call in calls.receive(piece)]
        assert ended == pending[:4]
        assert calls.fault is None
        assert (pending[0].result(), pending[2].result()) == ("before", "behind")
        for call in (pending[1], pending[3]):
            with pytest.raises(ProtocolError, match=why):
                call.result()
        assert calls.receive(reply(4, "later")) == pending[4:]
        assert calls._replies._rescue is None
        assert not calls._replies._tail


@pytest.mark.parametrize("name", UNREADABLE)
def test_alone(name: str) -> None:
    """Likewise where a call that waits alone reads its reply itself; the next one is quick again."""
    packed, why = UNREADABLE[name]
    for pieces in pieces_of(HEAD % 0 + packed):
        calls = Calls(LIMIT)
        calls.request("m", ())
        assert calls.reply(0, pieces[0]) is None
        call = Call()
        calls.begin(call, 0, 0)
        ended = calls.receive(b"")
        for piece in pieces[1:]:
            ended += calls.receive(piece)
        assert ended == [call]
        with pytest.raises(ProtocolError, match=why):
            call.result()
        calls.request("m", ())
        assert calls.reply(1, reply(1, "next")) == [1, 1, None, "next"]


def test_a_late_one_is_passed_over_while_another_waits_alone() -> None:
    """The large reply of a call that was given up is still on its way."""
    calls = Calls(LIMIT)
    calls.forget(begin(calls))
    data = HEAD % 0 + UNREADABLE["too large"][0]
    assert calls.receive(data[:-10]) == []
    calls.request("m", ())
    assert calls.reply(1, data[-10:] + reply(1, 5)) is None
    call = Call()
    calls.begin(call, 1, 0)
    assert calls.receive(b"") == [call]
    assert call.result() == 5


def test_arrays_as_keys_are_tuples() -> None:
    """In small results and in large ones."""
    calls = Calls(LIMIT)
    value = {(1, (2, 3)): {(): "x"}}
    for result in (value, [value, bytes(50_000)], [[value] * 2000]):
        call = begin(calls)
        assert calls.receive(reply(call.msgid, result)) == [call]
        assert call.result() == result


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\x94\x01\xff\xc0\x81\x80\x01",
        b"\x93\x01\x00\x81\x80\x01",
        b"\x81\x80\x01",
        b"\x94\x01\x00\xc0\xdb\x10\x00\x00\x00",
        b"\xdb\x00\x10\x00\x00",
    ],
)
def test_what_is_no_reply_still_ends_the_connection(data: bytes) -> None:
    """Nobody knows which call it is, or it is far too large."""
    calls = Calls(LIMIT)
    first, second = begin(calls), begin(calls)
    assert calls.receive(reply(0, 1) + b"\x94\x01\x00\xc0\x81\x80\x01" + data) == [first]
    assert isinstance(calls.fault, ProtocolError)
    assert calls.cut(1, "fault") == [second]


# -- all faces, over sockets


def unreadable_server(sock: socket.socket) -> None:
    """Answers ``bad`` with a result that cannot be read, and then all that waited for it."""
    waiting: list[int] = []
    for _, msgid, method, params in requests(sock):
        if method == "wait":
            waiting.append(msgid)
        elif method == "bad":
            sock.sendall(b"\x94\x01" + msgpack.packb(msgid) + b"\xc0" + UNREADABLE[params[0]][0])
            sock.sendall(b"".join(reply(number, "fine") for number in waiting))
            waiting.clear()
        else:
            sock.sendall(reply(msgid, params))


def by_client(client: Any, name: str) -> tuple[Any, list[Any]]:
    client.call("echo", "connected")
    waiting: list[Future[Any]] = [client.call_async("wait", idempotent=True) for _ in range(4)]
    with contextlib.suppress(ProtocolError):
        raise AssertionError(client.call("bad", name, idempotent=True))
    return client.call("echo", 1), [future.result(10) for future in waiting]


async def by_aio(client: Any, name: str) -> tuple[Any, list[Any]]:
    waiting = [client.call_async("wait", idempotent=True) for _ in range(4)]
    while client.pending < 4:
        await asyncio.sleep(0)
    with contextlib.suppress(ProtocolError):
        raise AssertionError(await client.call("bad", name, idempotent=True))
    return await client.call("echo", 1), await asyncio.gather(*waiting)


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("face", ["Client", "Pool", "aio.Client", "aio.Pool"])
def test_four_calls_in_flight_are_answered(face: str, name: str) -> None:
    """Over the same connection, which goes on; the call that could not be read is not sent again."""
    with serve(unreadable_server) as server:
        if face.startswith("aio"):

            async def main() -> tuple[Any, list[Any]]:
                made = aio.Client if face == "aio.Client" else aio.Pool
                options: dict[str, Any] = {"connections": 1} if face == "aio.Pool" else {}
                async with made(server.address, max_message_size=LIMIT, **options) as client:
                    return await by_aio(client, name)

            outcome = asyncio.run(main())
        elif face == "Pool":
            with Pool(server.address, connections=1, max_message_size=LIMIT) as pool:
                outcome = by_client(pool, name)
        else:
            with Client(server.address, max_message_size=LIMIT) as client:
                outcome = by_client(client, name)
        assert outcome == ([1], ["fine"] * 4)
        assert server.connections == 1


# -- what is not sent


NOT_SENT = {
    "too large": (bytes(LIMIT), f"found a message of 2000\\d\\d bytes, expected at most {LIMIT} .max_message_size."),
    "too deep": (nested(150), "nested more than 100 deep .max_depth."),
    "too deep among much": ([{"a": {"b": [1]}}] * 200 + [(nested(98),)], "nested more than 100 deep .max_depth."),
}


@pytest.fixture
def received() -> Iterator[tuple[Server, list[list[Any]]]]:
    """A server, and all that it has received."""
    came: list[list[Any]] = []

    def note(sock: socket.socket) -> None:
        for message in requests(sock):
            came.append(message)
            sock.sendall(reply(message[1], "here")) if message[0] == 0 else None

    with serve(note) as server:
        yield server, came


@pytest.mark.parametrize("name", NOT_SENT)
@pytest.mark.parametrize("face", FACES)
def test_what_no_server_takes_is_not_sent(face: str, name: str, received: tuple[Server, list[list[Any]]]) -> None:
    """An error at once, whichever the face; not one byte of it leaves."""
    server, came = received
    value, why = NOT_SENT[name]
    with pytest.raises(ValueError, match=why):
        call_by(face, server.address, "echo", value, max_message_size=LIMIT)
    assert call_by(face, server.address, "echo", nested(98), max_message_size=LIMIT) == "here"
    assert call_by(face, server.address, "echo", nested(150), max_message_size=LIMIT, max_depth=152) == "here"
    assert [message[2] for message in came] == ["echo"] * 2


def test_a_notification_neither(received: tuple[Server, list[list[Any]]]) -> None:
    """It would end the connection of others."""
    server, came = received
    with Client(server.address, max_message_size=LIMIT) as client:
        for value, why in NOT_SENT.values():
            with pytest.raises(ValueError, match=why):
                client.notify("log", value)
        assert client.call("echo") == "here"
    assert len(came) == 1


@pytest.mark.parametrize("size", [90, 100, 110, 5000])
def test_the_bounds_are_exact(size: int) -> None:
    """Of a request and of a batch's, to the byte and to the level."""
    body = body_packer()("m", (bytes(size),))
    most = len(body) + 7
    assert len(Calls(most).packed_request(body)) == most
    calls = Calls(most, max_depth=5)
    for _ in range(3):
        calls.request("m", (bytes(size),))
    body_packer(Bounds(most, 5))("m", (bytes(size),))
    with pytest.raises(ValueError, match="max_message_size"):
        body_packer(Bounds(most - 1, 5))("m", (bytes(size),))
    with pytest.raises(ValueError, match="max_message_size"):
        Calls(len(calls.request("m", (bytes(size),))) - 1).request("m", (bytes(size),))
    for pack in (calls.request, body_packer(Bounds(most, 5))):
        pack("m", (nested(3),))
        with pytest.raises(ValueError, match="max_depth"):
            pack("m", (nested(4),))


# -- a server that asks


def test_a_servers_request_is_answered() -> None:
    """With "'NAME' method not found"; a notification with nothing."""
    sent: list[bytes] = []
    calls = Calls(LIMIT, answer=sent.append)
    call = begin(calls)
    asked = [0, 3, "redraw", []], [0, 0, b"x", [1]], [2, "m", []], [0, 2**32 - 1, "\udcff", None]
    for message in (*asked, [1, 0, None, 5]):
        ended = calls.receive(msgpack.packb(message, unicode_errors="surrogateescape"))
    assert ended == [call]
    assert calls.fault is None
    assert [msgpack.unpackb(data, unicode_errors="surrogateescape") for data in sent] == [
        [1, 3, "'redraw' method not found", None],
        [1, 0, "'x' method not found", None],
        [1, 2**32 - 1, "'\udcff' method not found", None],
    ]


@pytest.mark.parametrize("face", FACES)
def test_the_answer_arrives(face: str) -> None:
    """Before the reply that the server gives only then."""
    heard: list[list[Any]] = []

    def ask(sock: socket.socket) -> None:
        msgid = -1
        for message in requests(sock):
            if message[0] == 0:
                msgid = message[1]
                sock.sendall(msgpack.packb([2, "note", []]) + msgpack.packb([0, 77, "who", ["are you"]]))
            else:
                heard.append(message)
                sock.sendall(reply(msgid, "thanks"))

    with serve(ask) as server:
        assert call_by(face, server.address, "m") == "thanks"
    assert heard == [[1, 77, "'who' method not found", None]]


@pytest.mark.parametrize("face", ["call", "aio"])
def test_a_server_that_asks_and_does_not_read(face: str) -> None:
    """Gets no more answers than it reads: they do not pile up, and the reply is had all the same."""
    done = threading.Event()

    def flood(sock: socket.socket) -> None:
        ((_, msgid, _, _),) = [next(requests(sock))]
        question = msgpack.packb([0, 1, "x" * 900, []])
        for _ in range(40):
            sock.sendall(question * 1000)
        sock.sendall(reply(msgid, "at last"))
        done.wait(10)

    with serve(flood) as server:
        assert call_by(face, server.address, "m", timeout=60) == "at last"
        done.set()


# -- the old library's names


def test_the_old_clients_dialect() -> None:
    """Tuples as keys, and errors of the call alone, there too."""

    def odd(sock: socket.socket) -> None:
        for _, msgid, method, _ in requests(sock):
            packed = b"\x81\x92\x01\xa1k\xa1x" if method == b"keys" or method == "keys" else b"\x81\x80\x01"
            sock.sendall(b"\x94\x01" + msgpack.packb(msgid) + b"\xc0" + packed)

    with serve(odd) as server:
        for encoding, value in ((None, {(1, b"k"): b"x"}), ("utf-8", {(1, "k"): "x"}), ("latin-1", {(1, "k"): "x"})):
            client = msgpackrpc.Client(msgpackrpc.Address(*server.name), unpack_encoding=encoding)
            assert client.call("keys") == value
            with pytest.raises(msgpackrpc.error.RPCError):
                client.call("other")
            assert client.call("keys") == value
            client.close()


def test_a_shallow_call_is_not_gone_through_level_by_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many numbers, or many small dicts, are told from what is nested at a glance; by no looser a bound."""

    def count(params: Any, most: int) -> bool:
        looks.append(params)
        return depth_exceeds(params, most)

    looks: list[Any] = []
    monkeypatch.setattr(outgoing, "depth_exceeds", count)
    numbers, dicts, lists = [0x80] * 200, [{"a": 1, "b": 2}] * 200, [[1], (2,)] * 200
    for shallow in (numbers, {"a": numbers, "b": numbers}, dicts, lists):
        body_packer()("m", (1, shallow))
    assert not looks
    for deeper in ([[[]]] * 200, [*numbers, {}], [{"a": []}] * 200):
        body_packer()("m", (1, deeper))
    assert len(looks) == 3
    with pytest.raises(ValueError, match="nested more than 3 deep"):
        body_packer(Bounds(100_000, 3))("m", (1, dicts))
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        body_packer()("m", ([*numbers, nested(98)],))
