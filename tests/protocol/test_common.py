"""The compiled way of clients does what msgpack does, or leaves it to msgpack; mutated bytes lead to the same calls."""

from __future__ import annotations

import math
import random
from typing import Any

import msgpack
import pytest
from fuzz import Source

from rpccluster.client.core.exchange.call import Call
from rpccluster.client.core.exchange.calls import Calls
from rpccluster.client.core.exchange.dialect import DIALECT
from rpccluster.protocol.codec import make_packer
from rpccluster.protocol.compiled import WIRE

pytestmark = pytest.mark.skipif(WIRE is None, reason="it was not built, or is not wanted")

PURE = DIALECT._replace(wire=None)
VALUES: list[Any] = [
    None, True, 0, -1, -33, 255, 2**32, 2**64 - 1, -(2**63), 1.5, math.nan, "", "ä" * 20, "\udcff", b"", b"x" * 300, [],
    [1, [2, [3]]], {}, {"a": 1, 2: [None]}, {None: 1, b"k": 2}, list(range(2000)), {n: str(n) for n in range(20)},
    (1, 2), msgpack.ExtType(5, b"abc"), "x" * 5000, [[[[[[[[[]]]]]]]]],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_requests_are_those_of_msgpack(value: Any) -> None:
    """Byte for byte, where it makes any; plain ones, and those with a deadline."""
    pack = make_packer().pack
    for msgid in (0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1):
        params = (value, [value])
        assert WIRE.pack_request(msgid, "méthod", params) in (None, pack((0, msgid, "méthod", params)))
        bound = pack((0, msgid, "rpc.call", ("m", params, {"timeout": 2.5})))
        assert WIRE.pack_request(msgid, "m", params, 2.5) in (None, bound)
    assert WIRE.pack_body("m", (value,)) in (None, pack("m") + pack((value,)))


@pytest.mark.parametrize(
    "value", [object(), 2**64, {1, 2}, bytearray(b"x"), msgpack.Timestamp(1)], ids=lambda value: type(value).__name__
)
def test_other_types_are_left_to_msgpack(value: Any) -> None:
    assert WIRE.pack_body("m", (value,)) is None
    assert WIRE.pack_request(1, "m", ([value],)) is None
    assert WIRE.pack_body("m", (1,)) == b"\xa1m\x91\x01"


class _Own(bytes):
    """A body that is to go plain."""


@pytest.mark.parametrize("seconds", [math.inf, 3.0])
@pytest.mark.parametrize("odd", [None, _Own(b"\xa1p\x90"), b"\xa8rpc.ping\x90", b"\xd9\x08rpc.ping\x90"])
def test_requests_of_a_batch_are_those_of_one_by_one(seconds: float, odd: bytes | None) -> None:
    """And each one's end is told."""
    bodies = [b"\xa3sum\x92\x01\x02", b"\xa4echo\x91\xc0", *([] if odd is None else [odd])]
    made = []
    for dialect in (DIALECT, PURE):
        calls = Calls(1 << 20, dialect)
        calls._bounded.is_offered = True
        made.append(calls.begin_all([Call() for _ in bodies], bodies, 0, seconds))
        assert calls.pending == len(bodies)
    assert made[0] == made[1]
    assert made[0][1][-1] == len(made[0][0])


def outcome(dialect: Any, pieces: list[bytes], count: int) -> list[Any]:
    """What becomes of so many calls when these pieces come."""
    told: list[bytes] = []
    calls = Calls(1 << 12, dialect, answer=told.append)
    made = [Call() for _ in range(count)]
    for call in made:
        calls.request("m", ())
        calls.begin(call, calls.msgid, 0)
    ended = []
    for piece in pieces:
        ended += calls.receive(piece)
        if calls.fault is not None:
            break
    state = [(call.state, repr(call.value), repr(call.error)) for call in made]
    return [state, [made.index(call) for call in ended], calls.pending, calls.dropped, repr(calls.fault), told]


def replies(choice: random.Random, count: int) -> bytes:
    """Replies to most calls, and what else a server may send."""
    data = b""
    for msgid in choice.sample(range(count + 2), choice.randint(1, count)):
        value = choice.choice(VALUES)
        data += make_packer().pack([1, msgid, choice.choice((None, None, None, "ValueError: x", 5)), value])
        if choice.random() < 0.05:
            data += choice.choice((b"\x93\x02\xa1m\x90", b"\x94\x00\x05\xa1m\x90", b"\xc0", b"\xc1"))
    return data


@pytest.mark.parametrize("seed", range(8))
def test_what_comes_means_the_same_with_it_and_without(seed: int) -> None:
    """Whole, in pieces, and mutated; fifty streams each."""
    choice = random.Random(seed)
    for number in range(50):
        data = bytearray(replies(choice, 8))
        for _ in range(choice.choice((0, 0, 1, 2))):
            Source(choice).mutate(data)
        cuts = sorted(choice.choices(range(len(data) + 1), k=choice.choice((0, 0, 1, 3, 20))))
        pieces = [bytes(data[start:end]) for start, end in zip([0, *cuts], [*cuts, len(data)])]
        pieces = [piece for piece in pieces if piece]
        assert outcome(DIALECT, pieces, 8) == outcome(PURE, pieces, 8), (seed, number)


def test_a_thread_alone_gets_its_reply_or_leaves_the_rest() -> None:
    """In both ways."""
    for dialect in (DIALECT, PURE):
        calls = Calls(1 << 12, dialect)
        pack = make_packer().pack
        assert calls.reply(1, pack([1, 1, None, {"a": [1]}])) == [1, 1, None, {"a": [1]}]
        assert calls.reply(2, pack([1, 2, "an error", None])) == [1, 2, "an error", None]
        whole = pack([1, 3, None, "value"])
        assert calls.reply(3, whole[:4]) is None
        call = Call()
        calls.begin(call, 3, 0)
        assert calls.receive(b"") == []
        assert calls.receive(whole[4:]) == [call]
        assert call.result() == "value"
