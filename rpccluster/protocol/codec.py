"""Converts values to bytes and back, with this project's types. Sans-I/O: no sockets, no clock; any process.

`rpccluster.protocol.shared` and `rpccluster.protocol.stream` decode streams of messages.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Callable

import msgpack

from rpccluster.errors import ProtocolError
from rpccluster.protocol.messages import NOTIFY, REQUEST, RESPONSE

__all__ = [
    "DECODE_ERRORS",
    "Encoded",
    "encoded",
    "make_packer",
    "make_unpacker",
    "map_of_any_keys",
    "msgid_of",
    "not_messagepack",
    "pack_notify",
    "pack_request",
    "pack_response",
    "unpack",
]

#: An Unpacker raises these for bytes that are not MessagePack or pass a limit. After any of them throw it away.
DECODE_ERRORS = (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError, MemoryError)
MOST_NANS = 100  # keys of one map, before Python 3.10
MOST_ALIKE = 100  # keys of one map that share a hash with another key, if arrays are among the keys


def _hash_of_timestamp(timestamp: msgpack.Timestamp) -> int:
    return hash(b"%d %d" % (timestamp.seconds, timestamp.nanoseconds))


def _map_of_few_nans(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    found = list(pairs)  # msgpack's Python version passes a generator
    if sum(key != key for key, _ in found) > MOST_NANS:
        raise ValueError(f"found a map with more than {MOST_NANS} keys that are not a number")
    return dict(found)


# Map keys with equal hashes make a dict slow: 4,000 of them (64 KB) took 0.4 s, 40,000 would take 40 s. A peer cannot
# choose the hash of a string, and few numbers share one, but any number of timestamps can (a timestamp hashes as a
# tuple of two integers). So timestamps get the hash of a bytes object, which a secret of the process determines.
msgpack.Timestamp.__hash__ = _hash_of_timestamp


class _Unholdable(ValueError):
    """A valid MessagePack map that no dict can hold."""


def map_of_any_keys(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Make a dict of decoded pairs; an array as a key becomes a tuple. An ``object_pairs_hook``; raises ValueError."""
    found = list(pairs)
    try:
        return _map_of_few_nans(found) if _FEW_NANS else dict(found)
    except TypeError:
        frozen = [(_frozen(key), value) for key, value in found]
    alike = len(frozen) - len({hash(key) for key, _ in frozen})
    if alike > MOST_ALIKE:
        raise _Unholdable(f"found a map with more than {MOST_ALIKE} keys whose hashes are those of others")
    return dict(frozen)


def _frozen(key: Any) -> Any:
    if type(key) is dict:
        raise _Unholdable("found a map with a map in a key, which no dict can have")
    return tuple(map(_frozen, key)) if type(key) is list else key


#: Before Python 3.10 all NaNs share one hash, too, and no NaN equals another.
_FEW_NANS: dict[str, Any] = {"object_pairs_hook": _map_of_few_nans} if sys.version_info < (3, 10) else {}

_TYPES: dict[str, Any] = {
    "raw": False,
    "use_list": True,
    "strict_map_key": False,
    "unicode_errors": "surrogateescape",
    "timestamp": 0,
}


def make_unpacker(max_message_size: int, max_container: int = 0) -> msgpack.Unpacker:
    """Make an Unpacker with this project's types: str by surrogateescape, lists, any hashable map key.

    It raises TypeError for a map with an array as a key; `unpack` reads such a map. It refuses a string of more than
    ``max_message_size`` bytes, and a container of more than ``max_container`` values (by default ``max_message_size``).
    Its owner counts the bytes of a message, because the buffer may also hold the next messages.
    """
    max_container = max_container or max_message_size
    return msgpack.Unpacker(
        **_TYPES,
        max_buffer_size=0,
        max_str_len=max_message_size,
        max_bin_len=max_message_size,
        max_ext_len=max_message_size,
        max_array_len=max_container,
        max_map_len=max_container,
    )


def unpack(data: bytes | bytearray) -> Any:
    """Decode the one value in ``data``, with this project's types; an array as a map's key becomes a tuple.

    Raises `ProtocolError` if ``data`` holds no single value, or one that Python cannot hold.
    """
    try:
        return _unpack_with(_FEW_NANS, data)
    except TypeError:  # a key that no dict can have
        pass
    except DECODE_ERRORS as error:
        raise not_messagepack(error) from None
    try:
        return _unpack_with({"object_pairs_hook": map_of_any_keys}, data)
    except DECODE_ERRORS as error:
        raise not_messagepack(error) from None


def _unpack_with(hooks: dict[str, Any], data: bytes | bytearray) -> Any:
    return msgpack.unpackb(data, **_TYPES, **hooks)


def not_messagepack(error: BaseException) -> ProtocolError:
    """Make the error that stands for one of `DECODE_ERRORS`."""
    if isinstance(error, _Unholdable):
        return ProtocolError(str(error))
    reason = str(error) if "exceeds max_" in str(error) else type(error).__name__
    return ProtocolError(f"found bytes that are not MessagePack, or pass max_message_size ({reason})")


def make_packer(default: Callable[[Any], Any] | None = None) -> msgpack.Packer:
    """Make a Packer with this project's types: str by surrogateescape, bytes as bin; ``default`` converts others."""
    return msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape", default=default or _refuse)


def _refuse(value: Any) -> Any:
    """Raise the error for a value of a type that MessagePack does not have, in msgpack's own words."""
    kind = type(value)
    if issubclass(kind, int):
        raise OverflowError("Integer value out of range")
    text = f"can not serialize '{kind.__name__}' object"
    if hasattr(kind, "__next__") or hasattr(kind, "__anext__"):
        text += ": a call has one result, so return a list of it, or let callers ask for one page after another"
    raise TypeError(text)


def pack_request(msgid: int, method: str, params: Any) -> bytes:
    """Pack ``[0, msgid, method, params]``. Raises msgpack's own error for a value that cannot be packed."""
    return make_packer().pack([REQUEST, msgid, method, params])


class Encoded(bytes):
    """A value as MessagePack bytes, which the answer to a call that is answered later has as they are."""


def encoded(value: Any) -> Encoded:
    """Pack a value whose lists and maps may hold some that are packed. Raises msgpack's own error if one cannot be."""
    return Encoded(b"".join(_parts(make_packer(), value)))


def _parts(packer: msgpack.Packer, value: Any) -> Iterator[bytes]:
    if type(value) is list:
        yield packer.pack_array_header(len(value))
        for each in value:
            yield from _parts(packer, each)
    elif type(value) is dict:
        yield packer.pack_map_header(len(value))
        for key, each in value.items():
            yield packer.pack(key)
            yield from _parts(packer, each)
    else:
        yield value if type(value) is Encoded else packer.pack(value)


def pack_response(msgid: int, error: Any, result: Any) -> bytes:
    """Pack ``[1, msgid, error, result]``. Raises msgpack's own error for a value that cannot be packed."""
    if type(result) is Encoded:
        head: bytes = make_packer().pack([RESPONSE, msgid, error, None])
        return head[:-1] + result
    return make_packer().pack([RESPONSE, msgid, error, result])


def pack_notify(method: str, params: Any) -> bytes:
    """Pack ``[2, method, params]``. Raises msgpack's own error for a value that cannot be packed."""
    return make_packer().pack([NOTIFY, method, params])


def msgid_of(response: bytes) -> int:
    """Return the msgid of a packed response."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(response[:16])
    unpacker.read_array_header()
    unpacker.skip()
    msgid: int = unpacker.unpack()
    return msgid
