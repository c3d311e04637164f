"""Packs and unpacks as msgpack-rpc-python does, and converts errors to that library's. Pure.

That library knows neither bin nor timestamps: str and bytes are both packed as the old raw, and raw arrives as bytes,
or decoded with ``unpack_encoding``.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Any

import msgpack

from rpccluster.client.core.exchange.dialect import Dialect
from rpccluster.compat.msgpackrpc import error as errors
from rpccluster.errors import CallTimeout, ConnectFailed, RPCClusterError
from rpccluster.protocol.codec import DECODE_ERRORS, map_of_any_keys, not_messagepack

__all__ = ["old_dialect", "old_error"]

_NO_METHOD = re.compile(rb"'.*' method not found\Z", re.DOTALL)
_ARGUMENT = re.compile(rb"ArgumentError: ")


def old_dialect(pack_encoding: str | None, unpack_encoding: str | None) -> Dialect:
    """Make the dialect of a client with these encodings; None packs as UTF-8, and unpacks to bytes."""

    return Dialect(
        lambda: _packer(pack_encoding or "utf-8"),
        lambda max_message_size, max_container: _unpacker(unpack_encoding),
        lambda packed: _unpacked(unpack_encoding, packed),
        _remote_error,
        is_bounded=False,
    )


def old_error(error: Exception) -> Exception:
    """Return the old library's error for one of this project's."""
    if isinstance(error, CallTimeout):
        return errors.TimeoutError("Request timed out")
    if isinstance(error, ConnectFailed):
        return errors.TransportError("Retry connection over the limit")
    if isinstance(error, errors.RPCError) or not isinstance(error, RPCClusterError):
        return error
    return errors.TransportError(str(error))


def _remote_error(error: object) -> Exception:
    text = error.encode("utf-8", "surrogateescape") if isinstance(error, str) else error
    if isinstance(text, bytes) and _NO_METHOD.match(text):
        return errors.NoMethodError(error)
    if isinstance(text, bytes) and _ARGUMENT.match(text):
        return errors.ArgumentError(error)
    return errors.RPCError(error)


def _packer(encoding: str) -> Any:
    packer = msgpack.Packer(use_bin_type=False, unicode_errors="surrogateescape", default=lambda x: x.to_msgpack())
    return packer if _is_utf8(encoding) else _Encoder(packer, encoding)


def _unpacker(encoding: str | None, **hooks: Any) -> Any:
    unpacker = msgpack.Unpacker(
        raw=encoding is None,
        strict_map_key=False,
        unicode_errors=None if encoding is None else "surrogateescape",
        max_buffer_size=0,  # a message's bytes are counted by its connection
        **hooks,
    )
    return unpacker if encoding is None or _is_utf8(encoding) else _Decoder(unpacker, encoding)


def _unpacked(encoding: str | None, packed: bytes | bytearray) -> Any:
    unpacker = _unpacker(encoding, object_pairs_hook=map_of_any_keys)
    unpacker.feed(packed)
    try:
        return unpacker.unpack()
    except DECODE_ERRORS as error:
        raise not_messagepack(error) from None


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


class _Encoder:
    """Packs str in an encoding that msgpack itself no longer knows."""

    def __init__(self, packer: Any, encoding: str) -> None:
        self._packer = packer
        self._encoding = encoding

    def pack(self, value: Any) -> bytes:
        return self._packer.pack(self._encoded(value))

    def _encoded(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.encode(self._encoding)
        return _rebuilt(value, self._encoded)


class _Decoder:
    """Unpacks raw in an encoding that msgpack itself no longer knows."""

    def __init__(self, unpacker: Any, encoding: str) -> None:
        self._unpacker = unpacker
        self._encoding = encoding
        self.feed = unpacker.feed
        self.tell = unpacker.tell

    def unpack(self) -> Any:
        return self._decoded(self._unpacker.unpack())

    def _decoded(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape").decode(self._encoding)
        return _rebuilt(value, self._decoded)


def _rebuilt(value: Any, convert: Callable[[Any], Any]) -> Any:
    """Return ``value`` with its elements converted, if it has any."""
    if type(value) in (list, tuple):  # a tuple is a key of a dict, or params
        return type(value)(convert(element) for element in value)
    if isinstance(value, dict):
        return {convert(key): convert(element) for key, element in value.items()}
    return value
