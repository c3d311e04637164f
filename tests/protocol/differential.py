"""Whether the decoders agree with msgpack, and the bounds with a plain reading of the specification, for any bytes.

What the fuzzers run, and the tests on all that these have found.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import msgpack

from rpccluster.errors import LimitExceeded, ProtocolError
from rpccluster.protocol.codec import DECODE_ERRORS, unpack
from rpccluster.protocol.messages import to_message
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.shared import Packed, Partial, SharedDecoder, Undecodable
from rpccluster.protocol.stream import StreamDecoder

__all__ = ["BOUNDS", "check"]

BOUNDS = Bounds(max_size=2048, max_depth=16)
MOST_BYTES = 4096  # of a stream
HEADER_BYTES = 6  # that the bounds may lag behind: a header's own, as long as it is incomplete

_decoder = SharedDecoder(BOUNDS)  # one for all streams, as in a worker: what one has left behind would harm the next


class _End(Exception):
    """There is nothing more to read."""


class _Reading:
    """The value at the beginning of ``data``, read as the specification is written."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._owed = 0  # values that containers have declared and that have not begun
        self.end = 0  # of the value, once it is whole
        self.least = 0  # bytes that it has, as far as is known
        self.deepest = 0  # containers in each other; one more than the bounds allow ends the reading
        with contextlib.suppress(_End):
            self.end = self._value(0, 1)

    @property
    def passes_bounds(self) -> bool:
        return self.least > BOUNDS.max_size or self.deepest > BOUNDS.max_depth

    def _need(self, end: int) -> None:
        self.least = max(self.least, end + self._owed)
        if end > len(self._data):
            raise _End

    def _number(self, at: int, width: int) -> int:
        self._need(at + width)
        return int.from_bytes(self._data[at : at + width], "big")

    def _value(self, at: int, level: int) -> int:
        first = self._number(at, 1)
        at += 1
        if first < 0x80 or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3):
            return at
        if first < 0xA0:
            return self._container(at, (first & 15) * (2 if first < 0x90 else 1), level)
        if first < 0xC0:
            return self._block(at + (first & 31))
        if first >= 0xDC:
            width = 4 if first & 1 else 2
            return self._container(at + width, self._number(at, width) * (1 if first < 0xDE else 2), level)
        if 0xC4 <= first <= 0xC9 or first >= 0xD9:
            width = 1 << (first - 0xC4) % 3 if first < 0xD9 else 1 << first - 0xD9
            return self._block(at + width + (0xC7 <= first <= 0xC9) + self._number(at, width))
        if first >= 0xD4:
            return self._block(at + 1 + (1 << first - 0xD4))
        if first >= 0xCA:
            return self._block(at + (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)[first - 0xCA])
        raise _End  # a byte that begins nothing

    def _block(self, end: int) -> int:
        self._need(end)
        return end

    def _container(self, at: int, values: int, level: int) -> int:
        self.deepest = max(self.deepest, level)
        if level > BOUNDS.max_depth:
            raise _End
        self._owed += values
        self._need(at)
        for _ in range(values):
            self._owed -= 1
            at = self._value(at, level + 1)
        return at


def check(case: bytes) -> None:
    """Raise AssertionError, or whatever a decoder should not, unless all agree on the stream in ``case``.

    Its first byte is how the stream is cut: 0 not at all, 1 after each byte, else by chance, of that seed.
    """
    seed, stream = case[:1], case[1 : 1 + MOST_BYTES]
    if not stream:
        return
    values, ends, is_broken = _by_msgpack(stream)
    found, partial, error = _by_ours(_cut(stream, seed[0]))
    assert [repr(value) for value in found] == [repr(value) for value in values[: len(found)]]
    rest = stream[ends[len(found)] :]
    if error is not None:
        _check_error(rest, len(found) < len(values) or not is_broken, error)
    else:
        assert len(found) == len(values)
        assert (bytes(partial.data) if partial else b"") == rest
        _check_bounds(rest)
    for begin, end, value in zip(ends, ends[1:], found):
        assert end - begin <= BOUNDS.max_size
        _check_depth(value)
    _check_messages(_cut(stream, seed[0] ^ 0x55), found, error)


def _cut(stream: bytes, seed: int) -> Iterator[bytes]:
    """``stream`` in pieces, none empty."""
    choice = random.Random(seed)
    at = 0
    while at < len(stream):
        size = len(stream) if seed == 0 else 1 if seed == 1 else int(choice.expovariate(1 / 40)) + 1
        yield stream[at : at + size]
        at += size


def _by_msgpack(stream: bytes) -> tuple[list[Any], list[int], bool]:
    """The values, where each ends (the first ends at 0), and whether more than bytes is missing behind them."""
    unpacker = msgpack.Unpacker(
        raw=False,
        strict_map_key=False,
        unicode_errors="surrogateescape",
        timestamp=0,
        max_buffer_size=0,
        max_array_len=MOST_BYTES,
        max_map_len=MOST_BYTES,
    )
    unpacker.feed(stream)
    values: list[Any] = []
    ends = [0]
    try:
        while True:
            values.append(unpacker.unpack())
            ends.append(unpacker.tell())
    except msgpack.OutOfData:
        return values, ends, False
    except DECODE_ERRORS:
        return values, ends, True


def _by_ours(pieces: Iterator[bytes]) -> tuple[list[Any], Partial | None, ProtocolError | None]:
    """The values, the incomplete rest, and the error that came of what follows the values."""
    values: list[Any] = []
    partial: Partial | None = None
    try:
        for piece in pieces:
            came, partial = _decoder.decode(piece) if partial is None else _decoder.decode_more(partial, piece)
            values += map(_unpacked, came)
    except Undecodable as undecodable:
        for value in undecodable.before:
            try:
                values.append(_unpacked(value))
            except ProtocolError as error:
                return values, None, error
        return values, None, undecodable.error
    except ProtocolError as error:
        return values, None, error
    return values, partial, None


def _unpacked(value: Any) -> Any:
    return unpack(value) if type(value) is Packed else value


def _check_error(rest: bytes, is_fine: bool, error: ProtocolError) -> None:
    """``error`` is right: the rest is no MessagePack, or passes a bound. ``is_fine`` is what msgpack says of it."""
    if isinstance(error, LimitExceeded):
        assert _Reading(rest).passes_bounds
    else:
        assert not is_fine


def _check_bounds(rest: bytes) -> None:
    """What is waited for is not whole, and passes no bound."""
    reading = _Reading(rest)
    assert not reading.end
    assert reading.least <= BOUNDS.max_size + HEADER_BYTES
    assert reading.deepest <= BOUNDS.max_depth


def _check_depth(value: Any) -> None:
    """A call that was taken is not too deep; what is none is refused later, whatever it is."""
    if type(value) is list and value:
        params = msgpack.Packer(unicode_errors="surrogateescape").pack(value[-1])
        assert _Reading(params).deepest < BOUNDS.max_depth


def _check_messages(pieces: Iterator[bytes], values: list[Any], error: ProtocolError | None) -> None:
    """A stream of messages has those that ``values`` stand for, up to the first that is none."""
    expected = []
    for value in values:
        try:
            expected.append(to_message(value))
        except ProtocolError as none:
            error = none
            break
    decoder = StreamDecoder(BOUNDS)
    found = []
    raised: ProtocolError | None = None
    try:
        for piece in pieces:
            found += decoder.feed(piece)
    except ProtocolError as protocol_error:
        raised = protocol_error
    for one, other in zip(found, expected):
        assert repr(one) == repr(other)
    if not isinstance(raised, LimitExceeded) and not isinstance(error, LimitExceeded):  # these may come sooner or later
        assert len(found) == len(expected)
        assert (raised is None) == (error is None)
