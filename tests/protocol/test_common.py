"""The compiled way of clients does what msgpack does, or leaves it to msgpack; mutated bytes lead to the same calls."""

from __future__ import annotations

import math
import random
import signal
import socket
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from fuzz import Source

from rpccluster.client.core.exchange.call import Call
from rpccluster.client.core.exchange.calls import Calls
from rpccluster.client.core.exchange.dialect import DIALECT
from rpccluster.client.sync.wire import UnixWire, Wire, receiver_of
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


@pytest.mark.parametrize("seconds", [None, 2.5])
def test_what_passes_a_limit_is_left_to_msgpack(seconds: float | None) -> None:
    """By a byte, or by a level; a key counts as one."""
    params = (b"x" * 50, [{"a": ()}])
    size = len(WIRE.pack_request(1, "m", params, seconds))
    assert WIRE.pack_request(1, "m", params, seconds, size, 4) is not None
    assert WIRE.pack_request(1, "m", params, seconds, size - 1, 4) is None
    assert WIRE.pack_request(1, "m", params, seconds, size, 3) is None
    assert WIRE.pack_request(1, "m", ({(): 1},), seconds, size, 2) is None


@pytest.mark.parametrize("is_offered", [False, True])
def test_limits_of_requests_are_the_same_with_it_and_without(is_offered: bool) -> None:
    """The same bytes, or the same error."""
    for max_size, max_depth in [(60, 6), (64, 4), (90, 5), (100, 100), (1 << 20, 3), (1 << 20, 1000)]:
        for params in [(b"x" * 40,), ([[]],), ([[[]]],), ({"a": [1]},), ({(1, 2): 3},), (b"x" * 300, [[[[]]]])]:
            made: list[Any] = []
            for dialect in (DIALECT, PURE):
                calls = Calls(max_size, dialect, max_depth=max_depth)
                calls._bounded.is_offered = is_offered
                try:
                    made.append(calls.request("method", params, 5.0))
                except ValueError as error:
                    made.append(str(error))
            assert made[0] == made[1], (max_size, max_depth, params)


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


# -- a thread that waits alone for its reply

MOST = 1 << 20
REPLY = make_packer().pack([1, 7, None, "value"])
COMING: dict[str, bytes] = {
    "the reply": REPLY,
    "an error": make_packer().pack([1, 7, "an error", None]),
    "another's": make_packer().pack([1, 8, None, "value"]),
    "two": REPLY * 2,
    "its beginning": REPLY[:-1],
    "it, and a beginning": REPLY + b"\x94",
    "no MessagePack": b"\xc1",
    "a byte": b"\x94",
    "of the buffer's size": make_packer().pack([1, 7, None, b"x" * (8192 - 7)]),
    "longer than the buffer": make_packer().pack([1, 7, None, [b"x" * 1000] * 20]),
    "longer than the limit": make_packer().pack([1, 7, None, b"x" * 50_000]),
    "nothing": b"",
}


@pytest.fixture(params=[Wire, UnixWire])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Wire, socket.socket]]:
    """The wire of a client, and its server."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield request.param(ours), theirs


@pytest.mark.parametrize("name", COMING)
def test_what_a_waiting_thread_receives_is_the_same(pair: tuple[Wire, socket.socket], name: str) -> None:
    """The whole reply, or the bytes, none of which is lost."""
    wire, peer = pair
    most, found = (40_000 if "limit" in name else MOST), []
    for dialect in (DIALECT, PURE):
        peer.sendall(COMING[name])
        data = receiver_of(wire, dialect, most)(7)
        found.append(data if isinstance(data, list) else Calls(most, PURE).reply(7, data) if data else data)
        assert data is None or isinstance(data, list) or data == COMING[name]
    if "limit" in name:
        assert found[0] is None
    else:
        assert found[0] == found[1]


def test_the_end_of_the_stream_is_no_silence(pair: tuple[Wire, socket.socket]) -> None:
    """Nothing of a tick, in both ways."""
    wire, peer = pair
    for dialect in (DIALECT, PURE):
        assert receiver_of(wire, dialect, MOST)(7) is None
    peer.close()
    for dialect in (DIALECT, PURE):
        assert receiver_of(wire, dialect, MOST)(7) == b""


def test_a_failed_connection_is_told_by_the_next_look(pair: tuple[Wire, socket.socket]) -> None:
    """Its input was not read, so the peer's end is a failure; the thread goes on to what tells it."""
    wire, peer = pair
    wire._socket.send(b"x")
    peer.close()
    assert receiver_of(wire, DIALECT, MOST)(7) is None
    assert receiver_of(wire, DIALECT, MOST)(7) == b""


def test_a_signal_is_handled_in_the_middle_of_a_wait(pair: tuple[Wire, socket.socket]) -> None:
    """What its handler raises ends the wait; one that raises nothing does no harm, also if it ends the wire."""
    wire = pair[0]
    receive = receiver_of(wire, DIALECT, MOST)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(KeyboardInterrupt):
            while True:
                receive(7)
        signal.signal(signal.SIGALRM, lambda *_: wire.close())
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        while wire._socket.fileno() >= 0:
            assert receive(7) is None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
