"""The outline of a message: how long it is, told as its bytes come, and what is refused before it is whole."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given

from rpccluster.errors import ProtocolError
from rpccluster.protocol.messages import Message
from rpccluster.protocol.outline import Bounds, Outline, depth_exceeds

from .streams import messages, pack

BOUNDS = Bounds(1 << 16, 100)
#: One value of every form that MessagePack has, beside the containers.
FORMS = [
    *(bytes([first]) for first in (0x00, 0x7F, 0xC0, 0xC2, 0xC3, 0xE0, 0xFF, 0xA0)),
    *(bytes([0xA0 + size]) + b"x" * size for size in (1, 31)),
    *(bytes([first]) + bytes(size) for first, size in zip(range(0xCA, 0xD4), (4, 8, 1, 2, 4, 8, 1, 2, 4, 8))),
    *(bytes([0xD4 + power]) + b"\x05" + bytes(1 << power) for power in range(5)),
    *(bytes([first]) + (3).to_bytes(width, "big") + b"abc" for first, width in ((0xC4, 1), (0xC5, 2), (0xC6, 4))),
    *(bytes([first]) + (3).to_bytes(width, "big") + b"abc" for first, width in ((0xD9, 1), (0xDA, 2), (0xDB, 4))),
    *(bytes([first]) + (3).to_bytes(width, "big") + b"\x05abc" for first, width in ((0xC7, 1), (0xC8, 2), (0xC9, 4))),
]
CONTAINERS = [
    b"\x90",
    b"\x80",
    *(head + b"".join(FORMS) for head in (b"\xdc" + bytes([0, len(FORMS)]), b"\xdd" + bytes([0, 0, 0, len(FORMS)]))),
    b"\x82" + FORMS[-1] + b"\x90" + b"\x01" + b"\x91\x80",
    b"\xde\x00\x01\xa1a\x02",
    b"\xdf\x00\x00\x00\x01\xa1a\x02",
    b"\x93\x91\x01\x92\x90\x90\x03",
]


def length_of(data: bytes, bounds: Bounds = BOUNDS) -> int:
    return Outline(bounds).advance(data)


@pytest.mark.parametrize("value", FORMS + CONTAINERS, ids=lambda data: data[:4].hex())
def test_a_value_ends_where_msgpack_says(value: bytes) -> None:
    """Whatever follows it; and no beginning of it is whole."""
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
    unpacker.feed(value)
    unpacker.skip()
    assert unpacker.tell() == len(value)
    assert length_of(value) == length_of(value + b"\x01\xc1") == len(value)
    assert not any(length_of(value[:size]) for size in range(len(value)))


@given(messages)
def test_a_message_byte_by_byte(message: Message) -> None:
    """Whole at its last byte; before it, ``resume_at`` never promises too late."""
    data = pack(message)
    outline, came = Outline(BOUNDS), bytearray()
    for byte in data[:-1]:
        came.append(byte)
        assert not outline.advance(came)
        assert len(came) < outline.resume_at <= len(data)
    came.append(data[-1])
    assert outline.advance(came) == len(data)


@pytest.mark.parametrize(
    "head",
    [
        b"\xc6\x00\x01\x00\x00",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x05",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\x00\x00\x80\x00",
        b"\xdc\xff\xff" * 2,
        b"\x93\xc5\xff\xff",
    ],
    ids=lambda data: data.hex(),
)
def test_more_than_there_can_be_is_refused_when_it_is_declared(head: bytes) -> None:
    """Even if all that is still to come were one byte each."""
    with pytest.raises(ProtocolError, match="message of more than 65536 bytes"):
        length_of(head)


def test_exactly_as_much_as_there_can_be() -> None:
    """Is waited for, and one more is not."""
    assert length_of(b"\xdd\x00\x00\xff\xfb" + bytes(0xFFFB)) == 1 << 16
    with pytest.raises(ProtocolError):
        length_of(b"\xdd\x00\x00\xff\xfc")


@pytest.mark.parametrize("one", [b"\x91", b"\x81\x01", b"\xdc\x00\x01"], ids=["array", "map", "array16"])
@pytest.mark.parametrize("last", [b"\x90", b"\x80", b"\xdc\x00\x00"], ids=lambda data: data.hex())
def test_depth(one: bytes, last: bytes) -> None:
    """As many containers as allowed, and not one more, though it be empty."""
    assert length_of(one * 99 + last)
    with pytest.raises(ProtocolError, match="nested more than 100 deep"):
        length_of(one * 100 + last)
    assert length_of(one * 100 + b"\x01")


def test_a_byte_that_messagepack_does_not_have() -> None:
    """Is refused wherever a value should begin, and is any byte inside a string."""
    with pytest.raises(ProtocolError, match="0xc1"):
        length_of(b"\x92\x01\xc1")
    assert length_of(b"\xc4\x01\xc1") == 3


@pytest.mark.parametrize(
    ("value", "depth"),
    [(1, 0), ([], 1), ({}, 1), ([1, "a"], 1), ([[]], 2), ({"a": {"b": []}}, 3), ([1, [2], [[3]]], 3), ([[], 1], 2)],
    ids=repr,
)
def test_the_depth_of_a_value(value: object, depth: int) -> None:
    """Counted from its outermost container."""
    assert not depth_exceeds(value, depth)
    assert depth == 0 or depth_exceeds(value, depth - 1)
