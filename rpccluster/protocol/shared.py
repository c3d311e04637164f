"""Decodes thousands of streams through one Unpacker. Sans-I/O; used by the worker.

An Unpacker holds some 44 KiB, and a half-decoded message may take a hundred times its own size. So the Unpacker gets
whole messages only. A stream with an incomplete message keeps that message's bytes, and its outline to know when it is
whole. If a message passes its bounds, or Python cannot hold it, `Unreadable` takes the place of its params, and the
stream goes on, as long as the message's head tells which call it is.

What bounds a message. ``max_message_size``: its outline adds the bytes that have come to the least that must still
come, one for each value that a container declares, so it is refused before anything comes of what was declared.
``max_depth``: the outline counts open containers; of messages that came whole the bytes that may begin a container are
counted, which clears nearly all, and the rest are walked through. The Unpacker refuses containers of more than
`SMALL_CONTAINER` values, so what nested headers make it allocate is bounded by the size of one recv.

On Python 3.12 a map's string keys are never freed: msgpack interns them, and interned strings are immortal there. Where
peers choose keys at will, ``max_memory`` bounds that.
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

#: A long message that is whole but not decoded yet; it is decoded when its turn comes.
Packed = bytearray

SMALL_BYTES = 16_384  # a message that came in pieces is decoded at once if it is no longer than this
SMALL_CONTAINER = 1024  # values that a container may declare; a larger one goes through its outline first
CALL_CONTAINERS = 2  # in every call: its own array and that of its params
COUNTED_BYTES = 64  # mean size of a message below which counting bytes is quicker than walking through values

_last_of = itemgetter(-1)


class Partial:
    """The beginning of a message: its bytes, and its outline so far.

    Long pieces stay separate until the outline can go on: a block that grew with each piece would be copied again and
    again.
    """

    __slots__ = ("_pieces", "outline", "size")

    def __init__(self, bounds: Bounds) -> None:
        self._pieces = [Packed()]
        self.size = 0  # bytes
        self.outline = Outline(bounds)

    def add(self, piece: Bytes) -> None:
        """Append the bytes that came next."""
        if SMALL_BYTES < len(piece) < self.missing:
            self._pieces.append(Packed(piece))
        else:
            self._pieces[-1] += piece
        self.size += len(piece)

    @property
    def data(self) -> Packed:
        """The bytes so far, as one block."""
        if len(self._pieces) > 1:
            self._pieces = [Packed().join(self._pieces)]
        return self._pieces[0]

    @property
    def missing(self) -> int:
        """Number of bytes that must come before the outline can get any further."""
        return self.outline.resume_at - self.size


#: The state of a stream between its pieces; None between messages.
Rest = Union[Partial, Skip, None]


class Undecodable(Exception):
    """A stream that cannot be decoded any further; ``messages`` are those before the faulty bytes.

    ``error`` waits for its turn, so it drops its traceback, which would keep the bytes in memory.
    """

    def __init__(self, error: ProtocolError, messages: list[Any]) -> None:
        super().__init__(str(error))
        self.error = error
        error.__traceback__ = error.__context__ = error.__cause__ = None
        self.messages = messages


class SharedDecoder:
    """Decodes the bytes of many streams; each stream keeps at most a `Partial` or a `Skip` between its pieces.

    ``bounds`` hold for each message. A message is returned as its decoded value, or as `Packed`.
    """

    def __init__(
        self,
        bounds: Bounds,
        make: Callable[[int, int], Any] | None = None,
        unpack_one: Callable[[Any], Any] | None = None,
    ) -> None:
        """``make`` and ``unpack_one`` may replace `make_unpacker` and `unpack`, for other types of values."""
        self._make_unpacker = make or make_unpacker
        self._unpack_one = unpack_one or unpack
        self.set_bounds(bounds)

    def set_bounds(self, bounds: Bounds) -> None:
        """Let ``bounds`` hold for messages that begin from now on."""
        self.bounds = bounds
        self._max_size, self._max_depth = bounds
        self._renew()

    def _renew(self) -> None:
        """Make a new Unpacker for small messages; an incomplete message spoils the old one."""
        unpacker = self._make_unpacker(self._max_size, SMALL_CONTAINER)
        self._feed, self._unpack, self._tell = unpacker.feed, unpacker.unpack, unpacker.tell
        self._fed = 0  # bytes fed to it in all

    def decode(self, data: bytes) -> tuple[list[Any], Rest]:
        """Return the messages in ``data``, which begins at a message's first byte, and the incomplete rest.

        Raises `Undecodable` for bytes that are not MessagePack, and for a message that passes the bounds and is no
        call, as far as that shows without decoding it.
        """
        messages, done = self.decode_whole(data)
        return (messages, None) if done == len(data) else self.decode_rest(messages, data[done:])

    def decode_rest(self, messages: list[Any], rest: Bytes) -> tuple[list[Any], Rest]:
        """Go on as `decode` does, with the ``rest`` that `decode_whole` has left after ``messages``."""
        return self._go_by_outline(messages, Partial(self.bounds), rest)

    def decode_more(self, partial: Partial | Skip, data: Bytes) -> tuple[list[Any], Rest]:
        """Go on as `decode` does, with ``data`` that continues ``partial``, which is used up."""
        return self._go_by_outline([], partial, data)

    def decode_whole(self, data: bytes) -> tuple[list[Any], int]:
        """Return the messages before the first that is incomplete or needs its outline, and where that one begins."""
        messages: list[Any] = []
        size = len(data)
        if size > self._max_size:  # otherwise no message in it can be too large
            return messages, 0
        done = start = self._fed
        self._fed = end = start + size
        unpack, tell = self._unpack, self._tell
        try:
            self._feed(data)
            while done != end:
                messages.append(unpack())
                done = tell()  # tell() also counts the bytes of an unfinished message
        except DECODE_ERRORS:
            self._renew()
        # counting the bytes that may begin a container clears most data; for long messages a walk is quicker
        if size > self._max_depth and (
            size > COUNTED_BYTES * len(messages) or len(data.translate(None, NO_CONTAINER)) > self._max_depth
        ):
            self._check_depth(messages, data)
        return messages, done - start

    def _go_by_outline(self, messages: list[Any], partial: Partial | Skip, data: Bytes) -> tuple[list[Any], Rest]:
        """Complete ``partial`` with ``data``, decode what follows it, and add all messages to ``messages``."""
        try:
            while True:
                if isinstance(partial, Skip):
                    rest = partial.pass_over(bytes(data))
                else:
                    rest, partial = self._take_one(messages, partial, data)
                if rest is None:
                    return messages, partial
                if not rest:
                    return messages, None
                data = rest
                others, done = self.decode_whole(data)
                messages += others
                if done == len(data):
                    return messages, None
                partial, data = Partial(self.bounds), data[done:]
        except ProtocolError as error:
            raise Undecodable(error, messages) from None
        except Undecodable as undecodable:
            raise Undecodable(undecodable.error, messages + undecodable.messages) from None

    def _take_one(self, messages: list[Any], partial: Partial, data: Bytes) -> tuple[bytes | None, Partial | Skip]:
        """Add the message of ``partial`` to ``messages`` once it is whole, or once it turns out to be unreadable.

        Returns the data behind the message, or None if its end has not come, and the state to go on with.
        """
        partial.add(data)
        if partial.missing > 0:
            return None, partial
        packed = partial.data
        try:
            length = partial.outline.advance(packed)
        except LimitExceeded as error:
            unreadable = without_body(packed, error)
            if unreadable is None:
                raise
            skip = Skip(partial.outline.owed, self.bounds)
            rest = skip.pass_over(bytes(memoryview(packed)[partial.outline.passed :]))
            messages.append(unreadable)
            return rest, skip
        if not length:
            return None, partial
        rest = bytes(memoryview(packed)[length:])
        del packed[length:]
        messages.append(packed if length > SMALL_BYTES else decoded(packed, self._unpack_one))
        return rest, partial

    def _check_depth(self, messages: list[Any], data: bytes) -> None:
        """Put `Unreadable` into each of ``messages`` that is nested too deep; ``data`` holds their bytes."""
        most = self._max_depth
        if len(data) <= COUNTED_BYTES * len(messages) and _end_in_lists(messages):
            others = CALL_CONTAINERS * (len(messages) - 1)
            if len(data.translate(None, NO_CONTAINER)) - others <= most:
                return
        for place, message in enumerate(messages):  # a call's params come last; nothing looks into what is no call
            if type(message) is list and message and depth_exceeds(message[-1], most - 1):
                unreadable = without_body(message, too_deep(self.bounds))
                if unreadable is None:
                    raise Undecodable(too_deep(self.bounds), messages[:place])
                messages[place] = unreadable


def _end_in_lists(messages: list[Any]) -> bool:
    """Return whether each value ends in a list, and so has at least the containers of a call."""
    try:
        return set(map(type, map(_last_of, messages))) == {list}
    except (TypeError, LookupError):
        return False
