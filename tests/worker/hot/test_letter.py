"""Replies to the letter, as clients of other libraries need them: msgids, and errors that none takes for success."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import msgpack
import pytest

from ..rig import Rig, until


class Empty(str):
    """A text that is nothing."""

    def __bool__(self) -> bool:
        return False


class Silent(Exception):
    """Says nothing."""

    def __str__(self) -> str:
        return ""


class Broken(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError


class Strange(Exception):
    """Says it by what is hardly text."""

    def __str__(self) -> str:
        return Empty("")


ERRORS: list[BaseException] = [
    Exception(),
    Exception(""),
    Exception(0),
    Exception(None),
    Exception(False),
    Silent(),
    Broken(),
    Strange(),
    type("", (Exception,), {})(),
    type("", (Exception,), {})(""),
    KeyboardInterrupt(),
    SystemExit(0),
    GeneratorExit(),
    StopIteration(),
    MemoryError(),
    TypeError(),
    TimeoutError(),
    Exception("\udcff\ud800"),
]


class Failing:
    """Raises what it is asked for."""

    def fail(self, number: int) -> None:
        raise ERRORS[number]

    def unpackable(self) -> object:
        return object()

    def wait(self) -> None:
        gevent.sleep(10)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(Failing(), call_timeout=0.02)
    yield made
    made.close()


def test_an_error_is_text_and_never_empty(rig: Rig) -> None:
    """Whatever was raised: false, 0 and "" are successes to many clients."""
    peer = rig.connect()
    for number in range(len(ERRORS)):
        peer.post("fail", number)
    for method, params in (("unpackable", []), ("wait", []), ("", []), ("fail", []), ("fail", None), ("nosuch", {})):
        peer._msgid += 1
        peer.send(msgpack.packb([0, peer._msgid, method, params]))
    for _, error, result in peer.wait(len(ERRORS) + 6):
        assert type(error) is str
        assert error
        assert result is None


@pytest.mark.parametrize(
    ("method", "params"), [("rpc.ping", []), ("nosuch", []), ("rpc.ping", None), (b"rpc.ping", [])]
)
@pytest.mark.parametrize(
    ("packed", "shortest"),
    [
        (b"\xcc\x05", b"\x05"),
        (b"\xcd\x00\x05", b"\x05"),
        (b"\xce\x00\x00\x00\x05", b"\x05"),
        (b"\xcf" + bytes(7) + b"\x05", b"\x05"),
        (b"\xd0\x05", b"\x05"),
        (b"\xd3" + bytes(7) + b"\x05", b"\x05"),
        (b"\xce\x00\x00\x00\x80", b"\xcc\x80"),
        (b"\xcf\x00\x00\x00\x00\x00\x01\x00\x00", b"\xce\x00\x01\x00\x00"),
        (b"\xcf\x00\x00\x00\x00\xff\xff\xff\xff", b"\xce\xff\xff\xff\xff"),
    ],
    ids=repr,
)
def test_a_msgid_comes_back_in_its_shortest_form(
    rig: Rig, packed: bytes, shortest: bytes, method: object, params: object
) -> None:
    """Whatever the request's width: some know no uint64."""
    peer = rig.connect()
    came = bytearray()
    peer.send(b"\x94\x00" + packed + msgpack.packb(method) + msgpack.packb(params))

    def some() -> bool:
        try:
            came.extend(peer.sock.recv(4096))
        except BlockingIOError:
            return False
        return True

    until(some)
    assert came.startswith(b"\x94\x01" + shortest)
    assert msgpack.unpackb(came)[1] == msgpack.unpackb(packed)
