"""One stream's bytes and its messages: types, pieces, limits, and what ends it."""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import Any

import msgpack
import pytest
from attacks import colliding_timestamps, map_of
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.errors import ProtocolError
from rpccluster.protocol import codec
from rpccluster.protocol.codec import pack_notify, pack_request, pack_response, unpack
from rpccluster.protocol.messages import Message, Notification, Request, Response
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.stream import StreamDecoder

from .streams import LIMIT, cut, cuts, pack, sequences

DEPTH = 100
SAMPLE: list[Message] = [
    Request(0, "sum", [1, 2]),
    Response(7, None, {"a": [1, b"x", None]}),
    Notification("log", ["Grüße", 2.5]),
    Request(2**32 - 1, "", []),
    Response(1, "error", None),
]


def fed(*pieces: bytes, limit: int = LIMIT) -> list[Message]:
    """All messages that come of ``pieces``, through one decoder."""
    decoder = StreamDecoder(Bounds(limit, DEPTH))
    return [message for piece in pieces for message in decoder.feed(piece)]


# -- what goes over the wire


def test_messages_are_packed_as_the_specification_writes_them() -> None:
    """Byte for byte."""
    assert pack_request(1, "m", [2]) == b"\x94\x00\x01\xa1m\x91\x02"
    assert pack_response(1, None, True) == b"\x94\x01\x01\xc0\xc3"
    assert pack_response(1, "e", None) == b"\x94\x01\x01\xa1e\xc0"
    assert pack_notify("m", []) == b"\x93\x02\xa1m\x90"


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        ("Grüße", "Grüße"),
        (b"\x00\xff", b"\x00\xff"),
        ((1, (2,)), [1, [2]]),
        ({1: "a", "b": 2, None: 3, b"c": 4, 2.5: 5}, {1: "a", "b": 2, None: 3, b"c": 4, 2.5: 5}),
        (msgpack.ExtType(5, b"x"), msgpack.ExtType(5, b"x")),
        (msgpack.Timestamp(1, 2), msgpack.Timestamp(1, 2)),
        ("\udcff\udc80", "\udcff\udc80"),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
    ],
    ids=repr,
)
def test_values_keep_their_types(value: Any, arrives: Any) -> None:
    """The contract's table: str, bin, arrays as lists, any hashable key, ext, timestamps; UTF-8 by surrogateescape."""
    (message,) = fed(pack_response(1, None, value))
    assert isinstance(message, Response)
    assert message.result == arrives
    assert type(message.result) is type(arrives)


def test_bytes_that_are_not_utf8_come_through() -> None:
    """What another client sent as str goes back as the same bytes."""
    raw = b"\x94\x01\x01\xc0\xa3a\xff\xfe"
    (message,) = fed(raw)
    assert message == Response(1, None, "a\udcff\udcfe")
    assert pack_response(*message) == raw


@pytest.mark.parametrize("value", [object(), 2**64, {1, 2}, "\ud800"], ids=["object", "large", "set", "surrogate"])
def test_a_value_that_cannot_be_packed_raises(value: Any) -> None:
    """TypeError, OverflowError or ValueError: msgpack's own."""
    with pytest.raises((TypeError, OverflowError, ValueError)):
        pack_response(1, None, value)


# -- pieces


def test_a_stream_in_one_piece() -> None:
    """All messages at once, in order."""
    assert fed(pack(*SAMPLE)) == SAMPLE


def test_a_stream_byte_by_byte() -> None:
    """The same messages."""
    assert fed(*(bytes([byte]) for byte in pack(*SAMPLE))) == SAMPLE


def test_a_stream_cut_in_two_anywhere() -> None:
    """The same messages, whichever the place."""
    stream = pack(*SAMPLE)
    for place in range(len(stream) + 1):
        assert fed(stream[:place], stream[place:]) == SAMPLE


def test_each_message_comes_as_soon_as_it_is_complete() -> None:
    """Not later, and with whatever follows it kept."""
    decoder = StreamDecoder(Bounds(LIMIT, DEPTH))
    first, second = pack(SAMPLE[0]), pack(SAMPLE[1])
    assert list(decoder.feed(first[:-1])) == []
    assert list(decoder.feed(first[-1:] + second[:3])) == [SAMPLE[0]]
    assert list(decoder.feed(b"")) == []
    assert list(decoder.feed(second[3:])) == [SAMPLE[1]]


@given(sequences, cuts)
def test_any_messages_cut_anywhere_decode_to_the_same(sequence: list[Message], shares: list[float]) -> None:
    """Whatever the pieces."""
    assert fed(*cut(pack(*sequence), shares)) == sequence


# -- limits


def sized(size: int) -> bytes:
    """A response of exactly ``size`` bytes."""
    head = b"\x94\x01\x01\xc0\xc6"
    payload = size - len(head) - 4
    return head + payload.to_bytes(4, "big") + bytes(payload)


@pytest.mark.parametrize("shares", [[], [0.5], [0.1, 0.2, 0.99]])
def test_a_message_may_have_exactly_as_many_bytes_as_allowed(shares: list[float]) -> None:
    """Not one more, however it arrives and whatever follows it."""
    small = pack(Notification("m", []))
    stream = sized(1000) + small * 300
    assert len(fed(*cut(stream, shares), limit=1000)) == 301
    with pytest.raises(ProtocolError, match="message of more than 999 bytes"):
        fed(*cut(stream, shares), limit=999)


@pytest.mark.parametrize("head", [b"\xdd\x00\x01\x00\x01", b"\xdf\x00\x01\x00\x01"], ids=["array", "map"])
def test_a_declared_number_above_the_limit_is_refused_at_once(head: bytes) -> None:
    """Before any member came: as many of them would need more bytes than a message may have."""
    with pytest.raises(ProtocolError, match="message of more than 65536 bytes"):
        fed(b"\x94\x01\x01\xc0" + head)


@pytest.mark.parametrize("head", [b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x05"])
def test_a_declared_size_above_the_limit_is_refused_at_once(head: bytes) -> None:
    """A str, bin or ext of 4 GiB is not waited for."""
    with pytest.raises(ProtocolError, match="message of more than 1000 bytes"):
        fed(b"\x94\x01\x01\xc0" + head, limit=1000)


def test_a_message_that_grows_piece_by_piece_is_refused() -> None:
    """An array whose members are small: no declared length tells."""
    decoder = StreamDecoder(Bounds(1000, DEPTH))
    head = b"\x94\x01\x01\xc0\xdc\x03\x84"
    assert list(decoder.feed(head)) == []
    with pytest.raises(ProtocolError, match="message of more than 1000 bytes"):
        for _ in range(20):
            list(decoder.feed(b"\xc4\x3a" + b"x" * 58))


@given(st.integers(0, 40), cuts)
def test_the_limit_holds_however_the_stream_is_cut(extra: int, shares: list[float]) -> None:
    """A message of 200 bytes, and a limit around it."""
    stream = pack(SAMPLE[0]) + sized(220)
    pieces = cut(stream, shares)
    if extra < 20:
        with pytest.raises(ProtocolError):
            fed(*pieces, limit=200 + extra)
    else:
        assert len(fed(*pieces, limit=200 + extra)) == 2


# -- what ends a stream

GARBAGE = [
    b"\xc1",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x00",
    b"\x90",
    b"\x91\x00",
    b"\x94\x03\x01\xa1m\x90",
    b"\x93\x00\x01\xa1m",
    b"\x94\x00\xff\xa1m\x90",
    b"\x81\x80\x01",
    b"\x81\x90\x01",
    b"\xd6\xff\xff\xff\xff\xff\x81\x81\x80\x01\x01",
    b"\x91" * 60_000,
    b"\xdd\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x00",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda data: repr(data[:10]))
def test_garbage_is_a_protocol_error(garbage: bytes) -> None:
    """Whatever it is, and nothing else escapes."""
    with pytest.raises(ProtocolError):
        fed(garbage)


def test_messages_before_the_garbage_are_had() -> None:
    """The stream dies where it goes wrong, not before."""
    decoder = StreamDecoder(Bounds(LIMIT, DEPTH))
    found = []
    with pytest.raises(ProtocolError):
        for message in decoder.feed(pack(*SAMPLE) + b"\xc1"):
            found.append(message)
    assert found == SAMPLE


@pytest.mark.parametrize("garbage", GARBAGE[:6], ids=lambda data: repr(data[:10]))
def test_a_dead_stream_stays_dead(garbage: bytes) -> None:
    """After any decode error nothing that comes is believed."""
    decoder = StreamDecoder(Bounds(LIMIT, DEPTH))
    for _ in range(2):
        with pytest.raises(ProtocolError):
            list(decoder.feed(garbage))
        garbage = pack(SAMPLE[0])


@given(st.binary(max_size=200), cuts)
def test_random_bytes_give_messages_or_a_protocol_error(data: bytes, shares: list[float]) -> None:
    """Never another exception."""
    try:
        fed(*cut(data, shares))
    except ProtocolError:
        pass


# -- keys of maps


def test_timestamps_as_keys_do_not_collide() -> None:
    """Whoever knows how tuples are hashed cannot make a dict slow with them; equal ones have one hash all the same."""
    keys = colliding_timestamps(1000)
    value = unpack(map_of(*keys))
    assert len(value) == len({hash(key) for key in value}) == 1000
    assert hash(msgpack.Timestamp(1, 2)) == hash(msgpack.Timestamp(1, 2))


def test_a_map_of_many_nans() -> None:
    """Is refused where all of them have one hash, and none is another (but for PyPy's); a few are fine."""
    nan = b"\xcb\x7f\xf8" + bytes(6)
    assert len(unpack(map_of(*[nan] * 100))) == (1 if sys.implementation.name == "pypy" else 100)
    if sys.version_info < (3, 10):
        with pytest.raises(ProtocolError):
            unpack(map_of(*[nan] * 101))
    else:
        assert len(unpack(map_of(*[nan] * 10_000))) == 10_000


@pytest.mark.parametrize("handed_over", [list, iter], ids=["list", "generator"])
def test_the_pairs_of_a_map_may_come_but_once(handed_over: Any) -> None:
    """As they do from msgpack in Python; in C they are a list."""
    assert codec._map_of_few_nans(handed_over([(1, "a"), (2, "b")])) == {1: "a", 2: "b"}


@pytest.mark.parametrize(
    "data",
    [b"\xc1", b"\xdc\x0f\xff" * 1300, b"\x94\x00\x01\xa1x" + b"\x91" * 1000 + b"\xc0", b"\x93\x02\xa1x\xc0"],
    ids=["no MessagePack", "no call, too deep", "a call too deep", "no message"],
)
@pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy collects everything some time later")
def test_a_failure_leaves_nothing_to_the_collector(data: bytes) -> None:
    """It may come late, and what led to the error may be large."""
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(ProtocolError):
            list(StreamDecoder(Bounds(1 << 20, 100)).feed(data))
        assert gc.collect() == 0
    finally:
        gc.enable()
