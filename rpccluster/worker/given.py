"""What a connection is made of when it moves to another process, beside its socket. Pure; runs in the worker."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgpack

from rpccluster.errors import ProtocolError
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
    """The bytes of messages that have not begun. Raises the error that stands for one that never will."""
    pack = make_packer(_as_extension).pack
    again: list[bytes | Packed] = []
    for message in messages:
        if isinstance(message, ProtocolError):
            raise message
        again.append(message if type(message) is Packed else pack(message))
    return again


def _as_extension(value: Any) -> msgpack.ExtType:
    if isinstance(value, Unreadable):
        return msgpack.ExtType(UNREADABLE_TYPE, str(value.error).encode())
    raise TypeError(f"found a value of type {type(value).__name__}, expected what was decoded")
