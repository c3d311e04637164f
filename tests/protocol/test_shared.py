"""Many streams through one Unpacker: the same messages as from one each, and no byte parsed twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rpccluster.errors import ProtocolError
from rpccluster.protocol import outline, shared
from rpccluster.protocol.codec import unpack
from rpccluster.protocol.messages import Message, Response, Unreadable
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.shared import SMALL_BYTES, Packed, Rest, SharedDecoder, Undecodable

from .streams import LIMIT, cut, cuts, messages, pack, sequences, value_of

VALUES = [[0, 1, "sum", [1, 2]], [2, "log", ["Grüße"]], [1, 2, None, {"a": [b"x" * 40, None]}], [0, 3, "", []]]


def decoder_of(limit: int = LIMIT, depth: int = 100) -> SharedDecoder:
    return SharedDecoder(Bounds(limit, depth))


def is_unread(part: object) -> bool:
    return isinstance(part, Unreadable)


class Stream:
    """One stream of a decoder, as a connection keeps it."""

    def __init__(self, decoder: SharedDecoder) -> None:
        self.decoder = decoder
        self.partial: Rest = None
        self.values: list[Any] = []

    def feed(self, *pieces: bytes) -> list[Any]:
        for piece in filter(None, pieces):
            try:
                if self.partial is None:
                    found, self.partial = self.decoder.decode(piece)
                else:
                    found, self.partial = self.decoder.decode_more(self.partial, piece)
            except Undecodable as undecodable:
                raise undecodable.error from None
            found = [unpack(value) if type(value) is Packed else value for value in found]
            unread = [part.error for value in found if type(value) is list for part in value if is_unread(part)]
            if unread:
                raise unread[0]
            self.values += found
        return self.values


def fed(*pieces: bytes, limit: int = LIMIT) -> list[Any]:
    return Stream(decoder_of(limit)).feed(*pieces)


def test_a_stream_in_one_piece() -> None:
    """All values, and nothing kept."""
    decoder = decoder_of()
    assert decoder.decode(pack(*VALUES)) == (VALUES, None)


def test_a_stream_byte_by_byte() -> None:
    """The same values."""
    assert fed(*(bytes([byte]) for byte in pack(*VALUES))) == VALUES


def test_a_stream_cut_in_two_anywhere() -> None:
    """The same values; something is kept exactly when the cut is inside a message."""
    stream = pack(*VALUES)
    borders = {len(pack(*VALUES[:count])) for count in range(len(VALUES) + 1)}
    decoder = decoder_of()
    for place in range(len(stream) + 1):
        one = Stream(decoder)
        one.feed(stream[:place])
        assert (one.partial is None) == (place in borders)
        assert one.feed(stream[place:]) == VALUES
        assert one.partial is None


def test_what_is_kept_are_the_bytes_of_the_unfinished_message() -> None:
    """Of that alone, not of those before it: another process goes on with them."""
    whole, more = pack(VALUES[0]), pack(VALUES[2])
    decoder = decoder_of()
    values, partial = decoder.decode(whole + whole + more[:10])
    assert values == [VALUES[0]] * 2
    assert partial is not None
    assert partial.data == more[:10]
    assert decoder.decode_more(partial, more[10:20]) == ([], partial)
    assert partial.data == more[:20]
    values, rest = decoder.decode_more(partial, more[20:] + whole + more[:3])
    assert values == [VALUES[2], VALUES[0]]
    assert rest is not None
    assert rest.data == more[:3]


@given(st.lists(st.sampled_from([1, 7, SMALL_BYTES, SMALL_BYTES + 1, 5 * SMALL_BYTES]), max_size=12))
def test_long_pieces_and_short_ones_in_any_order(sizes: list[int]) -> None:
    """The same values, and what is kept is what came of the unfinished message, byte by byte."""
    values = [[2, "log", [bytes(range(256)) * 1000, number]] for number in range(2)]
    stream, one, at = pack(*values), Stream(decoder_of(1 << 20)), 0
    for size in sizes:
        one.feed(stream[at : at + size])
        at = min(at + size, len(stream))
        kept = len(stream[:at]) - sum(len(pack(value)) for value in one.values)
        assert (bytes(one.partial.data) if one.partial else b"") == stream[at - kept : at]
    assert one.feed(stream[at:]) == values


def test_a_long_string_is_not_copied_with_each_piece_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, when it is whole: a thousand peers may each be sending one."""
    joined: list[int] = []

    class Counted(bytearray):
        def join(self, pieces: Any) -> bytearray:
            joined.append(len(list(pieces)))
            return Packed(b"".join(pieces))

    monkeypatch.setattr(shared, "Packed", Counted)
    message = pack([2, "log", [b"x" * 100 * SMALL_BYTES]])
    one = Stream(decoder_of(1 << 22))
    for at in range(0, len(message), 2 * SMALL_BYTES):
        one.feed(message[at : at + 2 * SMALL_BYTES])
    assert joined == [50]


def test_a_long_message_is_not_decoded_yet() -> None:
    """Of many that are whole one at a time should take up memory; what is behind it is decoded."""
    decoder, small = decoder_of(), pack(VALUES[0])
    for size, is_packed in ((SMALL_BYTES - 100, False), (SMALL_BYTES, True)):
        message = [0, 1, "m", [b"x" * size]]
        _, partial = decoder.decode(pack(message)[:-1])
        assert partial is not None
        (first, second), _ = decoder.decode_more(partial, b"x" + small)
        assert (type(first) is Packed, second) == (is_packed, VALUES[0])
        assert (unpack(first) if is_packed else first) == message


@given(sequences, cuts)
def test_any_messages_cut_anywhere_decode_to_the_same(sequence: list[Message], shares: list[float]) -> None:
    """Whatever the pieces."""
    assert fed(*cut(pack(*sequence), shares)) == [value_of(message) for message in sequence]


class Interleaved(RuleBasedStateMachine):
    """Streams whose pieces come in any order through one decoder, some of which break."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = decoder_of()
        self.streams = [Stream(self.decoder) for _ in range(4)]
        self.unfed = [b""] * 4
        self.sent: list[list[Any]] = [[] for _ in range(4)]

    @rule(number=st.integers(0, 3), message=messages, share=st.floats(0, 1))
    def some_come(self, number: int, message: Message, share: float) -> None:
        """A message is sent; a part of what is on its way arrives."""
        self.sent[number].append(value_of(message))
        waiting = self.unfed[number] + pack(message)
        place = int(share * len(waiting))
        self.streams[number].feed(waiting[:place])
        self.unfed[number] = waiting[place:]

    @rule(number=st.integers(0, 3))
    def all_come(self, number: int) -> None:
        """Everything on its way arrives."""
        stream = self.streams[number]
        assert stream.feed(self.unfed[number]) == self.sent[number]
        assert stream.partial is None
        self.unfed[number] = b""

    @rule(number=st.integers(0, 3))
    def one_breaks(self, number: int) -> None:
        """Garbage ends its own stream and no other."""
        stream = self.streams[number]
        stream.feed(self.unfed[number])
        with pytest.raises(ProtocolError):
            stream.feed(b"\xc1")
        self.streams[number], self.unfed[number], self.sent[number] = Stream(self.decoder), b"", []

    @invariant()
    def none_got_anothers(self) -> None:
        """Each stream has a beginning of what was sent on it."""
        for stream, sent in zip(self.streams, self.sent):
            assert stream.values == sent[: len(stream.values)]


TestInterleaved = Interleaved.TestCase


# -- limits


@pytest.mark.parametrize("shares", [[], [0.5], [0.01, 0.02, 0.9]])
def test_a_message_may_have_exactly_as_many_bytes_as_allowed(shares: list[float]) -> None:
    """Not one more, however it arrives and however many small ones follow in the same piece."""
    large = [1, 1, None, b"x" * 990]
    size = len(pack(large))
    stream = pack(large, *[VALUES[0]] * 500)
    assert len(fed(*cut(stream, shares), limit=size)) == 501
    with pytest.raises(ProtocolError, match=f"message of more than {size - 1} bytes"):
        fed(*cut(stream, shares), limit=size - 1)


def test_many_small_messages_in_one_piece_are_no_large_one() -> None:
    """The limit is a message's, not a piece's."""
    assert len(fed(pack(*[VALUES[0]] * 1000), limit=50)) == 1000


def test_a_message_that_grows_piece_by_piece_is_refused() -> None:
    """As soon as it has more bytes than allowed."""
    stream = Stream(decoder_of(1000))
    stream.feed(b"\x94\x00\x01\xa1m\xdc\x03\x84")
    with pytest.raises(ProtocolError, match="message of more than 1000 bytes"):
        for _ in range(20):
            stream.feed(b"\xc4\x3a" + b"x" * 58)


def test_after_garbage_the_decoder_serves_others() -> None:
    """One bad stream harms itself alone; its bytes are gone with it."""
    decoder = decoder_of()
    for garbage in (b"\xc1", b"\x91" * 60_000, b"\xdd\xff\xff\xff\xff", b"\x81\x80\x01"):
        with pytest.raises(ProtocolError):
            Stream(decoder).feed(pack(VALUES[0]) + garbage)
        assert decoder.decode(pack(*VALUES)) == (VALUES, None)


@given(st.binary(max_size=200), cuts)
def test_random_bytes_give_values_or_a_protocol_error(data: bytes, shares: list[float]) -> None:
    """Never another exception, and the decoder goes on with the next stream."""
    decoder = decoder_of()
    try:
        Stream(decoder).feed(*cut(data, shares))
    except ProtocolError:
        pass
    assert decoder.decode(pack(VALUES[0])) == (VALUES[:1], None)


def test_what_came_before_the_garbage_is_told() -> None:
    """Its callers are answered all the same."""
    for garbage in (b"\xc1", b"\x94\x00\x01\xa1m\xdd\xff\xff\xff\xff", pack([0, -1, "m", [nested(200)]])):
        with pytest.raises(Undecodable) as caught:
            decoder_of().decode(pack(*VALUES) + garbage)
        assert caught.value.messages == VALUES


# -- depth


def nested(depth: int) -> Any:
    """``depth`` containers in each other."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("others", [0, 1, 30, 2000])
@pytest.mark.parametrize("shares", [[], [0.5], [0.001, 0.01, 0.9]])
def test_a_message_may_be_exactly_as_deep_as_allowed(others: int, shares: list[float]) -> None:
    """Not one deeper, whatever surrounds it and however it arrives."""
    around = pack(*[VALUES[0]] * others)
    for inner, is_allowed in ((98, True), (99, False)):
        stream = around + pack([0, 1, "m", [nested(inner)]]) + around
        if is_allowed:
            assert len(fed(*cut(stream, shares))) == 2 * others + 1
        else:
            with pytest.raises(ProtocolError, match="nested more than 100 deep"):
                fed(*cut(stream, shares))


@given(messages, st.integers(2, 8))
def test_the_depth_is_judged_alike_however_a_message_arrives(message: Message, depth: int) -> None:
    """In one piece, and by its outline."""
    stream = pack(message)

    def is_refused(*pieces: bytes) -> bool:
        try:
            Stream(decoder_of(depth=depth)).feed(*pieces)
        except ProtocolError:
            return True
        return False

    in_pieces = is_refused(stream[:1], stream[1:])
    assert is_refused(stream + pack([2, "m", [b"x" * 200]])) == in_pieces or isinstance(message, Response)


# -- memory


@pytest.mark.parametrize(
    "attack",
    [
        b"\x94\x00\x01\xa1m\x91" + b"\xdc\xff\xff" * 90,
        b"\x94\x00\x01\xa1m\x91" + b"\xdc\x27\x10" * 90,
        b"\x94\x00\x01\xa1m\x91" + b"\xde\x27\x10\x01" * 90,
    ],
    ids=["arrays", "smaller arrays", "maps"],
)
def test_declared_lengths_cost_nothing(attack: bytes) -> None:
    """Many streams that each declare millions of values keep little more than their bytes."""
    tracemalloc = pytest.importorskip("tracemalloc")  # PyPy has none
    decoder = decoder_of(16 << 20)
    kept = [decoder.decode(attack)[1]]
    tracemalloc.start()
    decoder.decode(attack)
    before, _ = tracemalloc.get_traced_memory()
    kept += [decoder.decode(attack)[1] for _ in range(100)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert None not in kept
    assert after - before < 100 * (len(attack) * 4 + 4096)


# -- work


@dataclass
class Work:
    """What all Unpackers have done: how many were made, and how many arrays they built."""

    unpackers: int = 0
    arrays: int = 0

    def make_unpacker(self, limit: int, container: int = 0) -> msgpack.Unpacker:
        self.unpackers += 1
        return msgpack.Unpacker(raw=False, max_buffer_size=0, list_hook=self._count)

    def _count(self, array: list[Any]) -> list[Any]:
        self.arrays += 1
        return array


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Counts what the decoders made in this test do."""
    counted = Work()
    monkeypatch.setattr(shared, "make_unpacker", counted.make_unpacker)
    return counted


def test_a_message_in_a_thousand_pieces_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outline goes on where it was; nothing of it is made before it is whole."""
    passed = []
    original = outline.Outline._pass

    def counted(self: outline.Outline, end: int, values: int) -> None:
        passed.append(values)
        original(self, end, values)

    monkeypatch.setattr(outline.Outline, "_pass", counted)
    value = [0, 1, "m", [["x" * 5] * 100 for _ in range(100)]]
    one = Stream(decoder_of(1 << 20))
    assert one.feed(*cut(pack(value), [place / 1000 for place in range(1, 1000)])) == [value]
    assert len(passed) < 100 * 100 + 100 * 2 + 1000


def test_what_cannot_be_decoded_is_tried_once(work: Work) -> None:
    """What is behind it is not: each try would cost a new Unpacker."""
    decoder = decoder_of()
    with pytest.raises(Undecodable):
        decoder.decode(pack(VALUES[0]) + b"\xd4\x85\x00" * 5000)
    assert work.unpackers == 2


def test_whole_messages_make_no_unpackers(work: Work) -> None:
    """However many streams there are: an Unpacker costs 44 KiB and more than a call."""
    decoder = decoder_of()
    for _ in range(1000):
        assert Stream(decoder).feed(pack(*VALUES)) == VALUES
    assert work.unpackers == 1
