"""Decoding thousands of streams through one Unpacker. Sans-I/O; used by the worker.

An Unpacker holds some 44 KiB, and what it has begun to make of a message may be a hundred times the message's size.
So whole messages alone are given to one; a stream whose message is incomplete keeps that message's bytes, and its
outline to know when it is whole.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Union

from rpccluster.errors import ProtocolError
from rpccluster.protocol.codec import DECODE_ERRORS, make_unpacker, unpack
from rpccluster.protocol.outline import Bounds, Outline, depth_exceeds, too_deep

__all__ = ["Packed", "Partial", "SharedDecoder", "Undecodable"]

Bytes = Union[bytes, memoryview]

#: A whole message that is not decoded yet: it is long, and decoded when its turn comes.
Packed = bytearray

SMALL_BYTES = 16_384  # of a message that came in pieces and is decoded all the same as soon as it is whole
SMALL_CONTAINER = 1024  # values that a container may declare unseen; of one with more the outline is looked at first
CALL_CONTAINERS = 2  # which every call has: its own array and that of its params
COUNTED_BYTES = 64  # of a message on average, below which counting bytes is quicker than walking through values

_last_of = itemgetter(-1)
_NO_CONTAINER = bytes(byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF))


class Partial:
    """The beginning of a message: its bytes, and its outline as far as it is known.

    Long pieces stay as they came until the outline can go on: one block that grows with each of them would be
    copied again and again.
    """

    __slots__ = ("_pieces", "outline", "size")

    def __init__(self, bounds: Bounds) -> None:
        self._pieces = [Packed()]
        self.size = 0  # bytes
        self.outline = Outline(bounds)

    def add(self, piece: Bytes) -> None:
        """What came next."""
        if SMALL_BYTES < len(piece) < self.missing:
            self._pieces.append(Packed(piece))
        else:
            self._pieces[-1] += piece
        self.size += len(piece)

    @property
    def data(self) -> Packed:
        """All bytes, as one block."""
        if len(self._pieces) > 1:
            self._pieces = [Packed().join(self._pieces)]
        return self._pieces[0]

    @property
    def missing(self) -> int:
        """Bytes that must come, at the least, before it is of use to look again."""
        return self.outline.resume_at - self.size


class Undecodable(Exception):
    """What a stream has come to: ``before`` are the messages before the bytes of which ``error`` tells.

    That error waits for its turn, and so keeps nothing of how it came about: its traceback would hold the bytes.
    """

    def __init__(self, error: ProtocolError, before: list[Any]) -> None:
        super().__init__(str(error))
        self.error = error
        error.__traceback__ = error.__context__ = error.__cause__ = None
        self.before = before


class SharedDecoder:
    """Decodes the bytes of many streams, each of which keeps at most a `Partial` between its pieces.

    What it returns as a message is what the message decodes to, or `Packed`.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._max_size, self._max_depth = bounds
        self._renew()

    def _renew(self) -> None:
        """The Unpacker for small messages: it is of no use any more once one has been incomplete."""
        unpacker = make_unpacker(self._max_size, SMALL_CONTAINER)
        self._feed, self._unpack, self._tell = unpacker.feed, unpacker.unpack, unpacker.tell
        self._fed = 0  # bytes fed to it in all

    def decode(self, data: bytes) -> tuple[list[Any], Partial | None]:
        """The messages in ``data``, which begins at a message's first byte, and the incomplete rest.

        Raises `Undecodable` for bytes that are not MessagePack, and for a message that passes its bounds, as far
        as that can be seen without decoding it.
        """
        values, done = self.decode_whole(data)
        return (values, None) if done == len(data) else self.decode_rest(values, data[done:])

    def decode_rest(self, values: list[Any], rest: Bytes) -> tuple[list[Any], Partial | None]:
        """Likewise for the ``rest`` that `decode_whole` left after ``values``."""
        return self._go_by_outline(values, Partial(self._bounds), rest)

    def decode_more(self, partial: Partial, data: Bytes) -> tuple[list[Any], Partial | None]:
        """Likewise for ``data`` that goes on where ``partial`` ends. ``partial`` is used up."""
        return self._go_by_outline([], partial, data)

    def decode_whole(self, data: bytes) -> tuple[list[Any], int]:
        """The messages up to one that is incomplete, or stranger than it may be here, and where that begins."""
        values: list[Any] = []
        size = len(data)
        if size > self._max_size:  # else no message in it can be too large
            return values, 0
        done = start = self._fed
        self._fed = end = start + size
        unpack, tell = self._unpack, self._tell
        try:
            self._feed(data)
            while done != end:
                values.append(unpack())
                done = tell()  # it counts what it has read of an unfinished one, too
        except DECODE_ERRORS:
            self._renew()
        # counting the bytes that may begin a container clears most data; of long messages a walk is quicker
        if size > self._max_depth and (
            size > COUNTED_BYTES * len(values) or len(data.translate(None, _NO_CONTAINER)) > self._max_depth
        ):
            self._check_depth(values, data)
        return values, done - start

    def _go_by_outline(self, values: list[Any], partial: Partial, data: Bytes) -> tuple[list[Any], Partial | None]:
        """Go on with ``partial``, and with what follows it, after ``values`` of the same data."""
        try:
            while True:
                partial.add(data)
                if partial.missing > 0:
                    return values, partial
                packed = partial.data
                length = partial.outline.advance(packed)
                if not length:
                    return values, partial
                data = bytes(memoryview(packed)[length:])
                del packed[length:]
                values.append(packed if length > SMALL_BYTES else unpack(packed))
                if not data:
                    return values, None
                more, done = self.decode_whole(data)
                values += more
                if done == len(data):
                    return values, None
                partial, data = Partial(self._bounds), data[done:]
        except ProtocolError as error:
            raise Undecodable(error, values) from None
        except Undecodable as undecodable:
            raise Undecodable(undecodable.error, values + undecodable.before) from None

    def _check_depth(self, values: list[Any], data: bytes) -> None:
        """Raise `Undecodable` if one of ``values`` is nested too deep; all are in ``data``."""
        most = self._max_depth
        if len(data) <= COUNTED_BYTES * len(values) and _end_in_lists(values):
            others = CALL_CONTAINERS * (len(values) - 1)
            if len(data.translate(None, _NO_CONTAINER)) - others <= most:
                return
        for place, value in enumerate(values):  # a call's params come last; what is no call is never looked into
            if type(value) is list and value and depth_exceeds(value[-1], most - 1):
                raise Undecodable(too_deep(self._bounds), values[:place])


def _end_in_lists(values: list[Any]) -> bool:
    """Whether each value has a list as its last part, and so as many containers as a call, at the least."""
    try:
        return set(map(type, map(_last_of, values))) == {list}
    except (TypeError, LookupError):
        return False
