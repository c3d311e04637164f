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
from rpccluster.protocol.codec import DECODE_ERRORS
from rpccluster.protocol.messages import Unreadable, to_message
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.shared import Packed, Rest, SharedDecoder, Undecodable
from rpccluster.protocol.skip import Skip
from rpccluster.protocol.stream import StreamDecoder
from rpccluster.protocol.unreadable import decoded

__all__ = ["BOUNDS", "check"]

BOUNDS = Bounds(max_size=2048, max_depth=16)
MOST_BYTES = 4096  # of a stream
HEADER_BYTES = 6  # that the bounds may lag behind: a header's own, as long as it is incomplete

_decoder = SharedDecoder(BOUNDS)  # one for all streams, as in a worker: what one has left behind would harm the next


class _End(Exception):
    """There is nothing more to read."""


class _Reading:
    """The value at the beginning of ``data``, read by the specification, within the bounds."""

    def __init__(self, data: bytes, bounds: Bounds | None = BOUNDS) -> None:
        self._data = data
        self._bounds = bounds
        self._owed = 0  # values that containers have declared and that have not begun
        self.end = 0  # of the value, once it is whole
        self.least = 0  # bytes that it has, as far as is known
        self.deepest = 0  # containers in each other; one more than the bounds allow ends the reading
        with contextlib.suppress(_End):
            self.end = self._read()

    @property
    def passes_bounds(self) -> bool:
        return self.least > BOUNDS.max_size or self.deepest > BOUNDS.max_depth

    def _read(self) -> int:
        at, still_open = 0, [1]
        while still_open:
            if not still_open[-1]:
                still_open.pop()
                continue
            still_open[-1] -= 1
            self._owed -= len(still_open) > 1
            at, values = self._value(at)
            if values is not None:
                self.deepest = max(self.deepest, len(still_open))
                if self._bounds is not None and self.deepest > self._bounds.max_depth:
                    raise _End
                self._owed += values
                self._need(at)
                still_open.append(values)
        return at

    def _need(self, end: int) -> None:
        self.least = max(self.least, end + self._owed)
        if end > len(self._data):
            raise _End

    def _number(self, at: int, width: int) -> int:
        self._need(at + width)
        return int.from_bytes(self._data[at : at + width], "big")

    def _value(self, at: int) -> tuple[int, int | None]:
        """Where the value at ``at`` ends; or where its header does, and how many values it declares."""
        first = self._number(at, 1)
        at += 1
        if first < 0x80 or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3):
            return at, None
        if first < 0xA0:
            return at, (first & 15) * (2 if first < 0x90 else 1)
        if first < 0xC0:
            return self._block(at + (first & 31))
        if first >= 0xDC:
            width = 4 if first & 1 else 2
            return at + width, self._number(at, width) * (1 if first < 0xDE else 2)
        if 0xC4 <= first <= 0xC9 or first >= 0xD9:
            width = 1 << (first - 0xC4) % 3 if first < 0xD9 else 1 << first - 0xD9
            return self._block(at + width + (0xC7 <= first <= 0xC9) + self._number(at, width))
        if first >= 0xD4:
            return self._block(at + 1 + (1 << first - 0xD4))
        if first >= 0xCA:
            return self._block(at + (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)[first - 0xCA])
        raise _End  # a byte that begins nothing

    def _block(self, end: int) -> tuple[int, None]:
        self._need(end)
        return end, None


def check(case: bytes) -> None:
    """Raise AssertionError, or whatever a decoder should not, unless all agree on the stream in ``case``.

    Its first byte is how the stream is cut: 0 not at all, 1 after each byte, else by chance, of that seed.
    """
    seed, stream = case[:1], case[1 : 1 + MOST_BYTES]
    if not stream:
        return
    found, partial, error = _by_ours(_cut(stream, seed[0]))
    at = 0
    for value in found:
        end = _Reading(stream[at:], None).end
        if _is_unreadable(value):
            assert _Reading(stream[at:]).passes_bounds or isinstance(_by_msgpack(stream[at : at + end]), _Broken)
            if not end:
                assert value is found[-1]
                assert error is not None or isinstance(partial, Skip)
                return
        else:
            assert 0 < end <= BOUNDS.max_size
            expected = _by_msgpack(stream[at : at + end])
            assert repr(value) == repr(expected) or isinstance(expected, _Broken)  # an array is a key
            _check_depth(value)
        at += end
    if error is not None:
        _check_error(stream[at:], error)
    else:
        assert not isinstance(partial, Skip)
        assert (bytes(partial.data) if partial else b"") == stream[at:]
        _check_bounds(stream[at:])
    _check_messages(_cut(stream, seed[0] ^ 0x55), found, error)


def _cut(stream: bytes, seed: int) -> Iterator[bytes]:
    """``stream`` in pieces, none empty."""
    choice = random.Random(seed)
    at = 0
    while at < len(stream):
        size = len(stream) if seed == 0 else 1 if seed == 1 else int(choice.expovariate(1 / 40)) + 1
        yield stream[at : at + size]
        at += size


class _Broken:
    """What msgpack makes of a value that it cannot read."""


def _by_msgpack(packed: bytes) -> Any:
    """The one value, `_Broken` if there is none."""
    unpacker = msgpack.Unpacker(
        raw=False,
        strict_map_key=False,
        unicode_errors="surrogateescape",
        timestamp=0,
        max_buffer_size=0,
        max_array_len=MOST_BYTES,
        max_map_len=MOST_BYTES,
    )
    unpacker.feed(packed)
    try:
        return unpacker.unpack()
    except (msgpack.OutOfData, *DECODE_ERRORS):
        return _Broken()


def _by_ours(pieces: Iterator[bytes]) -> tuple[list[Any], Rest, ProtocolError | None]:
    """The values, the incomplete rest, and the error that came of what follows the values."""
    values: list[Any] = []
    partial: Rest = None
    try:
        for piece in pieces:
            came, partial = _decoder.decode(piece) if partial is None else _decoder.decode_more(partial, piece)
            values += map(_unpacked, came)
    except Undecodable as undecodable:
        for value in undecodable.messages:
            try:
                values.append(_unpacked(value))
            except ProtocolError as error:
                return values, None, error
        return values, None, undecodable.error
    except ProtocolError as error:
        return values, None, error
    return values, partial, None


def _unpacked(value: Any) -> Any:
    return decoded(value) if type(value) is Packed else value


def _is_unreadable(value: Any) -> bool:
    return type(value) is list and any(isinstance(part, Unreadable) for part in value)


def _check_error(rest: bytes, error: ProtocolError) -> None:
    """``error`` is right: the rest begins with what is no MessagePack, or passes a bound."""
    if isinstance(error, LimitExceeded):
        assert _Reading(rest).passes_bounds
    else:
        assert isinstance(_by_msgpack(rest), _Broken)


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
    is_too_much = isinstance(error, LimitExceeded)
    for value in values:
        if _is_unreadable(value):
            (error,) = [part.error for part in value if isinstance(part, Unreadable)]
            is_too_much |= isinstance(error, LimitExceeded)
            break
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
    if not isinstance(raised, LimitExceeded) and not is_too_much:  # these may come sooner or later
        assert len(found) == len(expected)
        assert (raised is None) == (error is None)
