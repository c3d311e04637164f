"""Decodes one stream that may be hostile: a connection to the control socket. Sans-I/O; any process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rpccluster.errors import ProtocolError
from rpccluster.protocol.codec import unpack
from rpccluster.protocol.messages import Message, Response, Unreadable, to_message
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.shared import Packed, Rest, SharedDecoder, Undecodable

__all__ = ["StreamDecoder"]


class StreamDecoder:
    """Turns the bytes of one stream into messages, in whatever pieces they arrive."""

    def __init__(self, bounds: Bounds) -> None:
        self._decoder = SharedDecoder(bounds)
        self._partial: Rest = None
        self._has_failed = False

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield each message that ``data`` completes.

        Raises `ProtocolError` at the first value that is no message, passes its bounds or cannot be read. After that
        the stream decodes nothing more.
        """
        if self._has_failed:
            raise ProtocolError("the stream has failed before")
        try:
            yield from self._decode(data)
        except ProtocolError:
            self._has_failed = True
            raise

    def _decode(self, data: bytes) -> Iterator[Message]:
        error: ProtocolError | None = None
        values: Any
        message: Any
        try:
            if self._partial is None:
                values, self._partial = self._decoder.decode(data)
            else:
                values, self._partial = self._decoder.decode_more(self._partial, data)
        except Undecodable as undecodable:
            values, error = undecodable.messages, undecodable.error
        for value in values:
            message = to_message(unpack(value) if type(value) is Packed else value)
            unread = message[1] if isinstance(message, Response) else message[-1]
            if isinstance(unread, Unreadable):
                error = unread.error
                break
            yield message
        if error is not None:
            try:
                raise error
            finally:  # otherwise the error's traceback would keep this frame, and with it the data
                error = values = value = message = unread = None
