"""Bytes to messages and back. Sans-I/O: no sockets, no clock; any process.

`StreamDecoder` serves one stream (the client, the control socket). The worker, which has thousands of
streams, decodes through one shared Unpacker instead: `rpccluster.worker.connection`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgpack

from rpccluster.errors import ProtocolError
from rpccluster.protocol.messages import NOTIFY, REQUEST, RESPONSE, Message, to_message

__all__ = [
    "DECODE_ERRORS",
    "StreamDecoder",
    "make_packer",
    "make_unpacker",
    "msgid_of",
    "not_messagepack",
    "pack_notify",
    "pack_request",
    "pack_response",
    "too_large",
]

#: What an Unpacker raises for bytes that are not MessagePack or pass a limit. After any of them throw it away.
DECODE_ERRORS = (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError, MemoryError)


def make_unpacker(max_message_size: int) -> msgpack.Unpacker:
    """An Unpacker with this project's types: str by surrogateescape, lists, any hashable map key.

    It refuses a length of more than ``max_message_size`` bytes when it is declared. What comes in one by one its
    owner counts: the buffer may hold the next messages beside an unfinished one, so its size tells nothing.
    """
    return msgpack.Unpacker(
        raw=False,
        use_list=True,
        strict_map_key=False,
        unicode_errors="surrogateescape",
        timestamp=0,
        max_buffer_size=0,
        max_str_len=max_message_size,
        max_bin_len=max_message_size,
        max_ext_len=max_message_size,
        max_array_len=max_message_size,
        max_map_len=max_message_size,
    )


def too_large(max_message_size: int) -> ProtocolError:
    """The error for a message of more than ``max_message_size`` bytes."""
    return ProtocolError(f"found a message of more than {max_message_size} bytes (max_message_size)")


def not_messagepack(error: BaseException) -> ProtocolError:
    """The error for what an Unpacker raised, one of `DECODE_ERRORS`."""
    reason = str(error) if "exceeds max_" in str(error) else type(error).__name__
    return ProtocolError(f"found bytes that are not MessagePack, or pass max_message_size ({reason})")


def make_packer() -> msgpack.Packer:
    """A Packer with this project's types: str by surrogateescape, bytes as bin."""
    return msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape")


def pack_request(msgid: int, method: str, params: Any) -> bytes:
    """``[0, msgid, method, params]``. Raises what msgpack raises for a value that cannot be packed."""
    return make_packer().pack([REQUEST, msgid, method, params])


def pack_response(msgid: int, error: Any, result: Any) -> bytes:
    """``[1, msgid, error, result]``. Raises what msgpack raises for a value that cannot be packed."""
    return make_packer().pack([RESPONSE, msgid, error, result])


def pack_notify(method: str, params: Any) -> bytes:
    """``[2, method, params]``. Raises what msgpack raises for a value that cannot be packed."""
    return make_packer().pack([NOTIFY, method, params])


def msgid_of(response: bytes) -> int:
    """The msgid of a packed response."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(response[:16])
    unpacker.read_array_header()
    unpacker.skip()
    msgid: int = unpacker.unpack()
    return msgid


class StreamDecoder:
    """Turns the bytes of one stream into messages, in whatever pieces they arrive."""

    def __init__(self, max_message_size: int) -> None:
        self._limit = max_message_size
        self._unpacker: msgpack.Unpacker | None = make_unpacker(max_message_size)
        self._end = 0  # bytes fed in all
        self._done = 0  # bytes of the whole messages among them

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield each message that ``data`` completes.

        Raises `ProtocolError` at the first byte that cannot be part of one, and once a message has more than
        ``max_message_size`` bytes; the stream is dead from then on.
        """
        if self._unpacker is None:
            raise ProtocolError("the stream has failed before")
        try:
            yield from self._decode(self._unpacker, data)
        except ProtocolError:
            self._unpacker = None
            raise
        except DECODE_ERRORS as error:
            self._unpacker = None
            raise not_messagepack(error) from None

    def _decode(self, unpacker: msgpack.Unpacker, data: bytes) -> Iterator[Message]:
        unpacker.feed(data)
        self._end += len(data)
        with contextlib.suppress(msgpack.OutOfData):
            while self._done != self._end:
                value = unpacker.unpack()
                began, self._done = self._done, unpacker.tell()
                self._check(self._done - began)
                yield to_message(value)
        # tell() counts the bytes of an unfinished message as consumed: only after a whole one it is of use
        self._check(self._end - self._done)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise too_large(self._limit)
