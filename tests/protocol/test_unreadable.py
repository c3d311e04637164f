"""Messages that cannot be read end nothing as long as their head tells which call they are; the rest is passed over."""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import pytest
from attacks import colliding_timestamps, map_of
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.errors import LimitExceeded, ProtocolError
from rpccluster.protocol.codec import MOST_ALIKE, unpack
from rpccluster.protocol.messages import Unreadable
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.shared import Packed, Rest, SharedDecoder
from rpccluster.protocol.skip import MOST_MESSAGES, Skip, resumed
from rpccluster.protocol.unreadable import decoded

from .streams import cut, cuts

BOUNDS = Bounds(1000, 10)
CALL = msgpack.packb([0, 3, "m", [1]])
DEEP: Any = [[[[[[[[[[[[1]]]]]]]]]]]]
MAP_AS_KEY = b"\x81\x81\x01\x02\x03"

values = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=40) | st.binary(max_size=300) | st.floats(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=20),
    max_leaves=60,
)


def fed(*pieces: bytes, decoder: SharedDecoder | None = None) -> tuple[list[Any], Rest]:
    """All messages, those that could not be read as ``[..., the error's text]``."""
    decoder = decoder or SharedDecoder(BOUNDS)
    found: list[Any] = []
    rest: Rest = None
    for piece in filter(None, pieces):
        came, rest = decoder.decode(piece) if rest is None else decoder.decode_more(rest, piece)
        found += [decoded(value) if type(value) is Packed else value for value in came]
    return [[str(part.error) if isinstance(part, Unreadable) else part for part in value] for value in found], rest


TOO_LARGE = "found a message of more than 1000 bytes (max_message_size)"
TOO_DEEP = "found a message nested more than 10 deep (max_depth)"
NO_KEY = "found a map with a map in a key, which no dict can have"


@pytest.mark.parametrize(
    ("message", "stands_for"),
    [
        (msgpack.packb([0, 7, "m", [b"x" * 2000]]), [0, 7, "m", TOO_LARGE]),
        (msgpack.packb([0, 7, b"m", ["x"] * 2000]), [0, 7, b"m", TOO_LARGE]),
        (msgpack.packb([0, 7, "m", [DEEP]]), [0, 7, "m", TOO_DEEP]),
        (msgpack.packb([0, 7, "m", [DEEP] * 300]), [0, 7, "m", TOO_DEEP]),
        (b"\x94\x00\x07\xa1m\x91" + MAP_AS_KEY, [0, 7, "m", NO_KEY]),
        (b"\x93\x02\xa1m\x91" + MAP_AS_KEY, [2, "m", NO_KEY]),
        (b"\x94\x01\x07\xc0" + MAP_AS_KEY, [1, 7, NO_KEY, None]),
        (b"\x94\x01\x07" + MAP_AS_KEY + b"\xc0", [1, 7, NO_KEY, None]),
        (b"\xdc\x00\x04\xcc\x00\xce\x00\x00\x00\x07\xd9\x01m\x91" + MAP_AS_KEY, [0, 7, "m", NO_KEY]),
        (msgpack.packb([1, 7, None, {"a": DEEP}]), [1, 7, TOO_DEEP, None]),
    ],
    ids=repr,
)
def test_it_is_told_and_what_is_around_it_is_read(message: bytes, stands_for: list[Any]) -> None:
    """Whole, byte by byte, and cut in two anywhere."""
    stream = CALL + message + CALL + message + CALL
    expected = [stands_for if step % 2 else unpack(CALL) for step in range(5)]
    decoder = SharedDecoder(BOUNDS)
    assert fed(stream, decoder=decoder) == (expected, None)
    assert fed(*(bytes([byte]) for byte in stream), decoder=decoder) == (expected, None)
    for place in range(0, len(stream), 1 + len(stream) // 300):
        assert fed(stream[:place], stream[place:], decoder=decoder) == (expected, None)


@pytest.mark.parametrize(
    "message",
    [
        msgpack.packb([0, -1, "m", [b"x" * 2000]]),
        msgpack.packb([0, 7, "m" * 5000, []]),
        msgpack.packb([0, 7, [b"x" * 2000], []]),
        msgpack.packb([0, 7, None, [b"x" * 2000]]),
        msgpack.packb([0, 7, "m", [b"x" * 2000], 5]),
        msgpack.packb([b"x" * 2000]),
        msgpack.packb(DEEP),
        msgpack.packb([0, 7, DEEP, []])[:-1],
        b"\x94\x00\xff\xa1m\x91" + MAP_AS_KEY,
        b"\x94\x00\x07\xa1m\x91\xdb\x00\xff\xff\xff",
        b"\x94\x00\x07\xa1m\x91\xdd\x00\xff\xff\xff",
        b"\x94\x00\x07\xa1m\x91\xdc\x03\xe0\xc1",
        b"\x94\x00\x07\xa1m\xdd\x00\x00\x10\x00\xc1",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_call_or_far_too_large_ends_the_stream(message: bytes) -> None:
    """Nobody could be told, or it is no mistake."""
    with pytest.raises(Exception, match=r"^found ") as raised:
        fed(CALL + message)
    assert isinstance(getattr(raised.value, "error", raised.value), ProtocolError)


@given(st.lists(values, min_size=1, max_size=4), cuts, st.binary(max_size=20))
def test_any_value_is_passed_over_exactly(those: list[Any], shares: list[float], behind: bytes) -> None:
    """In any pieces, and after a move to another process at any place; nothing behind it is lost."""
    stream = b"".join(map(msgpack.packb, those))
    skip: Skip | None = Skip(len(those), Bounds(1 << 20, 10))
    rest: bytes | None = None
    for piece in filter(None, cut(stream, shares)):
        assert skip is not None
        assert rest is None
        rest = skip.pass_over(piece)
        skip, after = resumed(skip.data + b"more", Bounds(1 << 20, 10))
        assert after == b"more"
    assert skip is not None
    assert (rest if rest is not None else skip.pass_over(b"")) == b""
    assert Skip(len(those), Bounds(1 << 20, 10)).pass_over(stream + behind) == behind


def test_a_skip_keeps_next_to_nothing() -> None:
    """However much comes."""
    skip = Skip(1, Bounds(1 << 20, 10))
    assert skip.pass_over(b"\xc6\x00\x80\x00\x00") is None
    for _ in range(7):
        assert skip.pass_over(bytes(1 << 20)) is None
        assert len(skip.data) < 40
        assert skip.missing >= 1 << 20
    assert skip.pass_over(bytes(1 << 20) + b"x") == b"x"


def test_a_skip_has_an_end() -> None:
    """What declares, or has, far more than a message may is given up."""
    most = MOST_MESSAGES * 1000
    for header in (b"\xc6", b"\xdd"):
        assert Skip(1, BOUNDS).pass_over(header + struct.pack(">I", most - 10)) is None
        with pytest.raises(LimitExceeded):
            Skip(1, BOUNDS).pass_over(header + struct.pack(">I", most + 10))
    skip = Skip(1, BOUNDS)
    with pytest.raises(LimitExceeded):
        for _ in range(most):
            assert skip.pass_over(b"\x91") is None


# -- keys


@pytest.mark.parametrize(
    ("packed", "value"),
    [
        (b"\x81\x92\x01\x02\xa1x", {(1, 2): "x"}),
        (b"\x81\x92\x01\x91\x90\xa1x", {(1, ((),)): "x"}),
        (b"\x82\x90\x91\x81\x91\x05\x80\x01\xc0", {(): [{(5,): {}}], 1: None}),
    ],
)
def test_an_array_as_a_key_becomes_a_tuple(packed: bytes, value: Any) -> None:
    """Arrays are lists everywhere else."""
    assert unpack(packed) == value
    assert msgpack.packb(value) == packed


@pytest.mark.parametrize("key", [b"\x80", b"\x91\x80", b"\x92\x01\x91\x81\x01\x02"])
def test_a_map_in_a_key_cannot_be_held(key: bytes) -> None:
    """No dict can be a key."""
    with pytest.raises(ProtocolError, match=f"^{NO_KEY}$"):
        unpack(b"\x81" + key + b"\x01")


def test_keys_made_to_collide_are_refused() -> None:
    """Whoever knows how tuples are hashed cannot make a dict slow with them; many honest ones are fine."""
    keys = []
    for packed in colliding_timestamps(2 * MOST_ALIKE):
        stamp = unpack(packed)
        keys.append(msgpack.packb([stamp.seconds, stamp.nanoseconds]))
    assert len({hash(tuple(unpack(key))) for key in keys}) == 1
    with pytest.raises(ProtocolError, match="whose hashes are those of others"):
        unpack(map_of(*keys))
    honest = [msgpack.packb([number, str(number)]) for number in range(20_000)]
    assert len(unpack(map_of(*honest))) == 20_000
