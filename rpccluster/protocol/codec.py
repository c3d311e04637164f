"""Bytes to messages and back. Sans-I/O: no sockets, no clock; any process.

`StreamDecoder` serves one stream (the client, the control socket). The worker, which has thousands of
streams, decodes through one shared Unpacker instead: `rpccluster.worker.connection`.
"""

from __future__ import annotations

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
    "pack_notify",
    "pack_request",
    "pack_response",
]

#: What an Unpacker raises for bytes that are not MessagePack or pass a limit. After any of them throw it away.
DECODE_ERRORS = (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError, MemoryError)


def make_unpacker(max_message_size: int) -> msgpack.Unpacker:
    """An Unpacker with this project's types: str by surrogateescape, lists, any hashable map key.

    ``max_message_size`` is in bytes.
    """
    return msgpack.Unpacker(
        raw=False,
        use_list=True,
        strict_map_key=False,
        unicode_errors="surrogateescape",
        timestamp=0,
        max_buffer_size=max_message_size,
    )


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


class StreamDecoder:
    """Turns the bytes of one stream into messages, in whatever pieces they arrive."""

    def __init__(self, max_message_size: int) -> None:
        self._max_message_size = max_message_size
        self._unpacker: msgpack.Unpacker | None = make_unpacker(max_message_size)

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield each message that ``data`` completes.

        Raises `ProtocolError` at the first byte that cannot be part of one; the stream is dead from then on.
        """
        if self._unpacker is None:
            raise ProtocolError("the stream has failed before")
        try:
            self._unpacker.feed(data)
            for value in self._unpacker:
                yield to_message(value)
        except ProtocolError:
            self._unpacker = None
            raise
        except msgpack.BufferFull:
            self._unpacker = None
            raise ProtocolError(f"found a message of more than {self._max_message_size} bytes") from None
        except DECODE_ERRORS as error:
            self._unpacker = None
            raise ProtocolError(f"found bytes that are not MessagePack ({type(error).__name__})") from None
