"""What a connection is made of when it moves to another process, beside its socket. Pure; runs in the worker."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import msgpack

from rpccluster.protocol.codec import make_packer
from rpccluster.protocol.messages import UNREADABLE_TYPE, Unreadable
from rpccluster.protocol.shared import Packed

__all__ = ["Given", "packed_again"]


class Given(NamedTuple):
    """What a connection is made of beside its socket; see `rpccluster.ipc.messages.Give`."""

    address: Any
    is_eof: bool
    input: bytes
    output: bytes


def packed_again(messages: list[Any]) -> list[bytes | Packed]:
    """The bytes of messages that have not begun. What is to be refused in its turn is so where it goes.

    Raises TypeError or ValueError for what no bytes decode to, or is too deep.
    """
    pack = make_packer(_as_extension).pack
    return [_packed_again(message, pack) for message in messages]


def _packed_again(message: Any, pack: Callable[[Any], bytes]) -> bytes | Packed:
    if type(message) is Packed:
        return message
    return pack(message) if type(message) is list else _NO_MESSAGE


def _as_extension(value: Any) -> msgpack.ExtType:
    if isinstance(value, Unreadable):
        return msgpack.ExtType(UNREADABLE_TYPE, str(value.error).encode())
    raise TypeError(f"found a value of type {type(value).__name__}, expected what was decoded")


_NO_MESSAGE = b"\xc1"  # which MessagePack does not have: whoever reads it answers the calls before it, and closes
