"""Decoding thousands of streams through one Unpacker. Sans-I/O; used by the worker.

An Unpacker holds some 44 KiB, and what it has begun to make of a message may be a hundred times the message's size.
So whole messages alone are given to one; a stream whose message is incomplete keeps that message's bytes, and its
outline to know when it is whole. A message that passes its bounds, or that Python cannot hold, has `Unreadable` in it
and ends nothing, as long as its head tells which call it is.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Callable, Union

from rpccluster.errors import LimitExceeded, ProtocolError
from rpccluster.protocol.codec import DECODE_ERRORS, make_unpacker, unpack
from rpccluster.protocol.outline import NO_CONTAINER, Bounds, Outline, depth_exceeds, too_deep
from rpccluster.protocol.skip import Skip
from rpccluster.protocol.unreadable import decoded, without_body

__all__ = ["Packed", "Partial", "Rest", "SharedDecoder", "Undecodable"]

Bytes = Union[bytes, memoryview]

#: A whole message that is not decoded yet: it is long, and decoded when its turn comes.
Packed = bytearray

SMALL_BYTES = 16_384  # of a message that came in pieces and is decoded all the same as soon as it is whole
SMALL_CONTAINER = 1024  # values that a container may declare unseen; of one with more the outline is looked at first
CALL_CONTAINERS = 2  # which every call has: its own array and that of its params
COUNTED_BYTES = 64  # of a message on average, below which counting bytes is quicker than walking through values

_last_of = itemgetter(-1)


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


#: What a stream keeps of an incomplete message.
Rest = Union[Partial, Skip, None]


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
    """Decodes the bytes of many streams, each of which keeps at most a `Partial` or a `Skip` between its pieces.

    ``bounds`` are those of each message. What it returns as a message is what the message decodes to, or `Packed`.
    """

    def __init__(
        self,
        bounds: Bounds,
        make: Callable[[int, int], Any] | None = None,
        unpack_one: Callable[[Any], Any] | None = None,
    ) -> None:
        """Values have this project's types, unless ``make`` and ``unpack_one`` do what `make_unpacker`, `unpack` do."""
        self.bounds = bounds
        self._make_unpacker = make or make_unpacker
        self._unpack_one = unpack_one or unpack
        self._max_size, self._max_depth = bounds
        self._renew()

    def _renew(self) -> None:
        """The Unpacker for small messages: it is of no use any more once one has been incomplete."""
        unpacker = self._make_unpacker(self._max_size, SMALL_CONTAINER)
        self._feed, self._unpack, self._tell = unpacker.feed, unpacker.unpack, unpacker.tell
        self._fed = 0  # bytes fed to it in all

    def decode(self, data: bytes) -> tuple[list[Any], Rest]:
        """The messages in ``data``, which begins at a message's first byte, and the incomplete rest.

        Raises `Undecodable` for bytes that are not MessagePack, and for what passes the bounds and is no call, as far
        as that can be seen without decoding it.
        """
        values, done = self.decode_whole(data)
        return (values, None) if done == len(data) else self.decode_rest(values, data[done:])

    def decode_rest(self, values: list[Any], rest: Bytes) -> tuple[list[Any], Rest]:
        """Likewise for the ``rest`` that `decode_whole` left after ``values``."""
        return self._go_by_outline(values, Partial(self.bounds), rest)

    def decode_more(self, partial: Partial | Skip, data: Bytes) -> tuple[list[Any], Rest]:
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
            size > COUNTED_BYTES * len(values) or len(data.translate(None, NO_CONTAINER)) > self._max_depth
        ):
            self._check_depth(values, data)
        return values, done - start

    def _go_by_outline(self, values: list[Any], partial: Partial | Skip, data: Bytes) -> tuple[list[Any], Rest]:
        """Go on with ``partial``, and with what follows it, after ``values`` of the same data."""
        try:
            while True:
                if isinstance(partial, Skip):
                    rest = partial.pass_over(bytes(data))
                else:
                    rest, partial = self._take_one(values, partial, data)
                if rest is None:
                    return values, partial
                if not rest:
                    return values, None
                data = rest
                more, done = self.decode_whole(data)
                values += more
                if done == len(data):
                    return values, None
                partial, data = Partial(self.bounds), data[done:]
        except ProtocolError as error:
            raise Undecodable(error, values) from None
        except Undecodable as undecodable:
            raise Undecodable(undecodable.error, values + undecodable.before) from None

    def _take_one(self, values: list[Any], partial: Partial, data: Bytes) -> tuple[bytes | None, Partial | Skip]:
        """Add the message that ``partial`` has begun to ``values`` once it is whole, or once it cannot be read.

        Returns what follows it, None as long as its end is not there; and what goes on then.
        """
        partial.add(data)
        if partial.missing > 0:
            return None, partial
        packed = partial.data
        try:
            length = partial.outline.advance(packed)
        except LimitExceeded as error:
            message = without_body(packed, error)
            if message is None:
                raise
            skip = Skip(partial.outline.owed, self.bounds)
            rest = skip.pass_over(bytes(memoryview(packed)[partial.outline.passed :]))
            values.append(message)
            return rest, skip
        if not length:
            return None, partial
        rest = bytes(memoryview(packed)[length:])
        del packed[length:]
        values.append(packed if length > SMALL_BYTES else decoded(packed, self._unpack_one))
        return rest, partial

    def _check_depth(self, values: list[Any], data: bytes) -> None:
        """Put `Unreadable` into those of ``values`` that are nested too deep; all are in ``data``."""
        most = self._max_depth
        if len(data) <= COUNTED_BYTES * len(values) and _end_in_lists(values):
            others = CALL_CONTAINERS * (len(values) - 1)
            if len(data.translate(None, NO_CONTAINER)) - others <= most:
                return
        for place, value in enumerate(values):  # a call's params come last; what is no call is never looked into
            if type(value) is list and value and depth_exceeds(value[-1], most - 1):
                message = without_body(value, too_deep(self.bounds))
                if message is None:
                    raise Undecodable(too_deep(self.bounds), values[:place])
                values[place] = message


def _end_in_lists(values: list[Any]) -> bool:
    """Whether each value has a list as its last part, and so as many containers as a call, at the least."""
    try:
        return set(map(type, map(_last_of, values))) == {list}
    except (TypeError, LookupError):
        return False
