"""Decoding thousands of streams through one Unpacker. Sans-I/O; used by the worker.

An Unpacker holds some 44 KiB, so a stream gets one of its own only while a message of it is incomplete:
then the shared one, which already holds the message's beginning, goes to the stream and a new one is made.
"""

from __future__ import annotations

from typing import Any, Union

import msgpack

from rpccluster.protocol.codec import DECODE_ERRORS, make_unpacker, not_messagepack, too_large

__all__ = ["Partial", "SharedDecoder"]


Bytes = Union[bytes, memoryview]

REUSED_BYTES = 4 << 20  # an Unpacker that held a longer message is not kept: its buffer never shrinks


class Partial:
    """The beginning of a message: the Unpacker that holds it and how many bytes of it came."""

    __slots__ = ("end", "pieces", "size", "unpacker")

    def __init__(self, unpacker: msgpack.Unpacker, end: int, pieces: list[bytes]) -> None:
        self.unpacker = unpacker
        self.end = end  # bytes fed to the Unpacker in all its life
        self.pieces = pieces  # the bytes themselves: another process may have to begin with them anew
        self.size = sum(map(len, pieces))


class SharedDecoder:
    """Decodes the bytes of many streams, each of which keeps at most a `Partial` between its pieces."""

    def __init__(self, max_message_size: int) -> None:
        self._limit = max_message_size
        self._end = 0  # bytes fed to the Unpacker in all its life
        self._renew()

    def decode(self, data: Bytes) -> tuple[list[Any], Partial | None]:
        """The values in ``data``, which begins at a message's first byte, and the incomplete rest.

        Raises `ProtocolError` if ``data`` holds anything that is not MessagePack, or a message that is too large.
        """
        if len(data) > self._limit:  # else no message in it can be too large
            return self.decode_more(Partial(make_unpacker(self._limit), 0, []), data)
        values: list[Any] = []
        end = self._end + len(data)
        done = self._end
        unpack, tell = self._unpack, self._tell
        try:
            self._unpacker.feed(data)
            while done != end:
                values.append(unpack())
                done = tell()
        except msgpack.OutOfData:
            # tell() counts the bytes of an unfinished message as consumed: `done` is from the last whole one
            partial = Partial(self._unpacker, end, [bytes(data[len(data) - (end - done) :])])
            self._renew()
            return values, partial
        except DECODE_ERRORS as error:
            self._renew()
            raise not_messagepack(error) from None
        self._end = end
        return values, None

    def decode_more(self, partial: Partial, data: Bytes) -> tuple[list[Any], Partial | None]:
        """Likewise for ``data`` that goes on where ``partial`` ends. ``partial`` is used up."""
        values: list[Any] = []
        unpacker = partial.unpacker
        end = partial.end + len(data)
        done = partial.end - partial.size
        try:
            unpacker.feed(data)
            while done != end:
                values.append(unpacker.unpack())
                began, done = done, unpacker.tell()
                self._check(done - began)
        except msgpack.OutOfData:
            self._check(end - done)
            if values:
                return values, Partial(unpacker, end, [bytes(data[len(data) - (end - done) :])])
            partial.pieces.append(bytes(data))
            partial.end, partial.size = end, end - done
            return values, partial
        except DECODE_ERRORS as error:
            raise not_messagepack(error) from None
        if partial.size <= REUSED_BYTES:
            self._use(unpacker, end)
        return values, None

    def _use(self, unpacker: msgpack.Unpacker, end: int) -> None:
        """Share ``unpacker``, which is empty and has been fed ``end`` bytes: its buffer has grown already."""
        self._unpacker, self._end = unpacker, end
        self._unpack, self._tell = unpacker.unpack, unpacker.tell

    def _renew(self) -> None:
        self._use(make_unpacker(self._limit), 0)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise too_large(self._limit)
