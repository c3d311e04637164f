"""Arguments that are none, and servers that misbehave: a clear error in time, by every face, never another's result."""

from __future__ import annotations

import socket
import time
from typing import Any, Callable

import msgpack
import pytest

from rpccluster.client import Client, Pool, aio
from rpccluster.errors import AddressError, CallTimeout, Lost, NotSent, ProtocolError

from ..faces import FACES, call_by
from ..servers import Server, reply, requests, serve

each_face = pytest.mark.parametrize("face", FACES)

# -- arguments


@pytest.mark.parametrize("kind", [Client, aio.Client, Pool, aio.Pool])
@pytest.mark.parametrize(
    "address", ["", "nonsense", "tcp://", "host:99999", "host:-1", "host:x", "unix://relative", "http://a:1"]
)
def test_address_that_cannot_be_parsed(kind: Callable[[Any], object], address: str) -> None:
    """Refused when the client is made, with what was found and what was expected."""
    with pytest.raises(AddressError, match=r"found .*, expected "):
        kind([address] if kind in (Pool, aio.Pool) else address)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@each_face
@pytest.mark.parametrize(
    "bad", [object(), {1, 2}, 2**70, -(2**70), nested(10_000)], ids=["object", "set", "large", "small", "deep"]
)
def test_argument_that_cannot_be_packed(server: Server, face: str, bad: object) -> None:
    """What msgpack raises, at once; nothing is sent. A method that is no string likewise."""
    with pytest.raises((TypeError, ValueError, OverflowError)):
        call_by(face, server.address, "echo", bad)
    with pytest.raises(TypeError, match="expected str"):
        call_by(face, server.address, b"echo", 1)  # type: ignore[arg-type]


def test_the_connection_stays_good_after_it() -> None:
    """The server sees the good calls alone, over one connection."""
    got: list[Any] = []

    def handle(sock: socket.socket) -> None:
        for message in requests(sock):
            got.append(message[3])
            sock.sendall(reply(message[1], "right"))

    with serve(handle) as server, Client(server.address, timeout=10) as client:
        for number in range(10):
            for call in (client.call, client.call_async, client.notify, client.batch().call):
                with pytest.raises(TypeError):
                    call("x", [1, object()])
            assert client.call("x", number) == "right"
        assert server.connections == 1
    assert got == [[number] for number in range(10)]


# -- servers


def answering(*answers: Callable[[int], bytes]) -> Callable[[socket.socket], None]:
    """A server that answers the n-th request of a connection with what the n-th function makes of its msgid."""

    def handle(sock: socket.socket) -> None:
        for number, message in enumerate(requests(sock)):
            sock.sendall(answers[number](message[1]) if number < len(answers) else reply(message[1], "right"))

    return handle


RUBBISH = {
    "html": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "never used": lambda _: b"\xc1",
    "no message": lambda _: msgpack.packb("x"),
    "short message": lambda msgid: msgpack.packb([1, msgid, None]),
    "deep": lambda _: b"\x91" * 100_000,
    "msgid of a string": lambda _: msgpack.packb([1, "0", None, 1]),
    "oversize": lambda msgid: reply(msgid, b"x" * 2_000_000),
    "oversize in pieces": lambda msgid: reply(msgid, ["x" * 100] * 20_000),
}


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH)
@each_face
def test_rubbish(face: str, rubbish: Callable[[int], bytes]) -> None:
    """A server that answers rubbish, or more than max_message_size: a clear error at once, and a new connection."""
    with serve(answering(rubbish)) as server:
        start = time.monotonic()
        with pytest.raises(ProtocolError, match="found"):
            call_by(face, server.address, "x", timeout=20, max_message_size=1_000_000)
        assert time.monotonic() - start < 15


def test_after_rubbish() -> None:
    """The connection that brought rubbish is given up, and the next call has another one."""
    with serve(answering(lambda _: b"\xc1")) as server, Client(server.address, timeout=5) as client:
        for count in (1, 2, 3):
            with pytest.raises(ProtocolError):
                client.call("x")
            assert server.connections == count


@each_face
def test_announced_gigabyte(face: str) -> None:
    """A reply that announces a gigabyte and comes slowly ends at the timeout, with no more than came in memory."""

    def handle(sock: socket.socket) -> None:
        for message in requests(sock):
            sock.sendall(b"\x94\x01" + msgpack.packb(message[1]) + b"\xc0\xc6\x40\x00\x00\x00")
            for _ in range(40):
                sock.sendall(b"x" * 100_000)

    with serve(handle) as server, pytest.raises(ProtocolError, match="max_message_size"):
        call_by(face, server.address, "x", timeout=20, max_message_size=1_000_000)


def doubled(msgid: int) -> bytes:
    """A right reply between one with a msgid that nobody has and a second one."""
    return reply(msgid + 1000, "unknown") + reply(msgid, "right") + reply(msgid, "doubled")


def test_unknown_and_doubled_replies() -> None:
    """Replies that nobody asked for, and second ones, answer nobody."""

    with serve(answering(*[doubled] * 50)) as server, Client(server.address, timeout=5) as client:
        assert [client.call("x") for _ in range(100)] == ["right"] * 100
        assert client.call_async("x").result(5) == "right"
        assert server.connections == 1


def test_replies_ahead_of_their_requests() -> None:
    """A server that answers msgids before they are used answers nobody: such a reply is dropped when it comes."""
    ahead = b"".join(reply(msgid, "early") for msgid in range(50))

    def handle(sock: socket.socket) -> None:
        for number, message in enumerate(requests(sock)):
            sock.sendall(reply(message[1], "right") + (ahead if number == 0 else b""))

    with serve(handle) as server, Client(server.address, timeout=5) as client:
        assert [client.call("x") for _ in range(3)] == ["right"] * 3


@each_face
def test_a_reply_that_is_anothers(face: str) -> None:
    """Unknown msgids and second replies answer nobody, by whichever face."""
    with serve(answering(*[doubled] * 9)) as server:
        assert call_by(face, server.address, "x", timeout=10) == "right"
        with serve(answering(lambda msgid: reply(msgid + 1, "another's"))) as other, pytest.raises(CallTimeout):
            call_by(face, other.address, "x", timeout=0.2)


@each_face
def test_a_server_that_accepts_and_says_nothing(face: str) -> None:
    """It costs a call its timeout, by whichever face, and no more."""
    with serve(answering_nothing) as server:
        start = time.monotonic()
        with pytest.raises(CallTimeout):
            call_by(face, server.address, "x", timeout=0.2)
        assert 0.19 < time.monotonic() - start < 10


def test_a_server_that_says_nothing() -> None:
    """Call after call on one connection."""
    with serve(answering_nothing) as server, Client(server.address, timeout=0.1) as client:
        start = time.monotonic()
        for _ in range(3):
            with pytest.raises(CallTimeout):
                client.call("x")
        assert time.monotonic() - start < 10
        with pytest.raises(CallTimeout):
            client.call_async("x").result(5)
        with client.batch() as batch:
            calls = [batch.call("x") for _ in range(3)]
        assert all(isinstance(call.error, CallTimeout) for call in calls)


def answering_nothing(sock: socket.socket) -> None:
    """A server that reads, and says nothing."""
    for _ in requests(sock):
        pass


def test_a_server_that_accepts_and_closes() -> None:
    """A server that closes each connection at once gets a bounded number of attempts."""
    with serve(lambda sock: None) as server, Client(server.address, timeout=5) as client:
        for _ in range(5):
            with pytest.raises((Lost, NotSent)):
                client.call("x")
        assert server.connections <= 15


def test_requests_from_the_server() -> None:
    """A server's own requests and notifications do no harm."""

    def talkative(msgid: int) -> bytes:
        return msgpack.packb([0, msgid, "x", []]) + msgpack.packb([2, "x", []]) + reply(msgid, "right")

    with serve(answering(*[talkative] * 9)) as server, Client(server.address, timeout=5) as client:
        assert [client.call("x") for _ in range(9)] == ["right"] * 9
