"""Values to bytes and back, as this project does it. Sans-I/O: no sockets, no clock; any process.

Streams of messages are decoded by `rpccluster.protocol.shared` and `rpccluster.protocol.stream`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Callable

import msgpack

from rpccluster.errors import ProtocolError
from rpccluster.protocol.messages import NOTIFY, REQUEST, RESPONSE

__all__ = [
    "DECODE_ERRORS",
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

#: What an Unpacker raises for bytes that are not MessagePack or pass a limit. After any of them throw it away.
DECODE_ERRORS = (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError, MemoryError)
MOST_NANS = 100  # keys of one map, before Python 3.10
MOST_ALIKE = 100  # keys of one map whose hash another one has, if there are arrays among them


def _hash_of_timestamp(timestamp: msgpack.Timestamp) -> int:
    return hash(b"%d %d" % (timestamp.seconds, timestamp.nanoseconds))


def _map_of_few_nans(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    found = list(pairs)  # msgpack in Python hands over a generator
    if sum(key != key for key, _ in found) > MOST_NANS:
        raise ValueError(f"found a map with more than {MOST_NANS} keys that are not a number")
    return dict(found)


# Keys whose hashes are the same make a dict slow. Those of strings and bytes are keyed by a secret of the process, of
# integers and floats few are the same; but the hash of a tuple of two integers can be had at will.
msgpack.Timestamp.__hash__ = _hash_of_timestamp


class _Unholdable(ValueError):
    """A map that is MessagePack, and that no dict can be."""


def map_of_any_keys(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """The dict of decoded pairs, arrays among its keys made tuples. An ``object_pairs_hook``; raises ValueError."""
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


#: Before Python 3.10 all NaNs have one hash, too, and none is equal to another.
_FEW_NANS: dict[str, Any] = {"object_pairs_hook": _map_of_few_nans} if sys.version_info < (3, 10) else {}

_TYPES: dict[str, Any] = {
    "raw": False,
    "use_list": True,
    "strict_map_key": False,
    "unicode_errors": "surrogateescape",
    "timestamp": 0,
}


def make_unpacker(max_message_size: int, max_container: int = 0) -> msgpack.Unpacker:
    """An Unpacker with this project's types: str by surrogateescape, lists, any hashable map key.

    Of a map with an array as a key it raises TypeError; `unpack` can read that.

    It refuses a string of more than ``max_message_size`` bytes, and a container of more values than
    ``max_container``, or else as many. A message's bytes its owner counts: the buffer may hold the next ones, too.
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
    """The one value that ``data`` holds, with the same types; an array that is a map's key becomes a tuple.

    Raises `ProtocolError` if there is no such value, or Python cannot hold it.
    """
    try:
        return _unpack_with(_FEW_NANS, data)
    except TypeError:  # a key that is no dict's
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
    """The error for what an Unpacker raised, one of `DECODE_ERRORS`."""
    if isinstance(error, _Unholdable):
        return ProtocolError(str(error))
    reason = str(error) if "exceeds max_" in str(error) else type(error).__name__
    return ProtocolError(f"found bytes that are not MessagePack, or pass max_message_size ({reason})")


def make_packer(default: Callable[[Any], Any] | None = None) -> msgpack.Packer:
    """A Packer with this project's types: str by surrogateescape, bytes as bin; ``default`` turns others into these."""
    return msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape", default=default)


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
