"""Reads on where a connection's Unpacker cannot: one reply is too large, or Python cannot hold it.

Goes by the outlines of messages, so that such a reply ends its own call and no other. Sans-I/O. It is made when needed,
and dropped when that message is over.
"""

from __future__ import annotations

from typing import Any

from rpccluster.client.core.exchange.dialect import Dialect
from rpccluster.errors import ProtocolError
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.shared import Packed, Rest, SharedDecoder, Undecodable
from rpccluster.protocol.unreadable import decoded

__all__ = ["Rescue"]

MOST_DEPTH = 1000  # of a reply; msgpack itself goes as far


class Rescue:
    """Reads messages by their outlines. ``fault`` says why the stream has ended, if it has."""

    def __init__(self, dialect: Dialect, max_message_size: int) -> None:
        self._unpack = dialect.unpack
        self._decoder = SharedDecoder(Bounds(max_message_size, MOST_DEPTH), dialect.unpacker, dialect.unpack)
        self._rest: Rest = None
        self.fault: ProtocolError | None = None

    @property
    def is_over(self) -> bool:
        """Whether no message is incomplete, so that a new Unpacker may go on."""
        return self._rest is None

    def messages(self, data: bytes) -> list[Any]:
        """Return the messages that ``data`` completes, with `Unreadable` in those that cannot be read."""
        decoder, rest = self._decoder, self._rest
        try:
            found, self._rest = decoder.decode(data) if rest is None else decoder.decode_more(rest, data)
        except Undecodable as undecodable:
            found, self._rest, self.fault = undecodable.messages, None, undecodable.error
        messages: list[Any] = []
        try:
            for each in found:
                messages.append(decoded(each, self._unpack) if type(each) is Packed else each)
        except ProtocolError as error:
            self.fault = error
        return messages
