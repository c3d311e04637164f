"""Calls that were decoded and have not begun, as bytes again, for the worker that takes their connection. Pure."""

from __future__ import annotations

from typing import Any, Callable

import msgpack

from rpccluster.protocol.codec import make_packer
from rpccluster.protocol.messages import UNREADABLE_TYPE, Unreadable
from rpccluster.protocol.shared import Packed

__all__ = ["packed_again"]

_NO_MESSAGE = b"\xc1"  # which MessagePack does not have: whoever reads it answers the calls before it, and closes


def packed_again(calls: list[Any]) -> list[bytes | Packed]:
    """The bytes of each of ``calls``. What is to be refused in its turn is refused where it goes, too.

    Raises TypeError or ValueError for what no bytes decode to, or is too deep.
    """
    pack = make_packer(_as_extension).pack
    return [_packed_again(call, pack) for call in calls]


def _packed_again(call: Any, pack: Callable[[Any], bytes]) -> bytes | Packed:
    if type(call) is Packed:
        return call
    return pack(call) if type(call) is list else _NO_MESSAGE


def _as_extension(value: Any) -> msgpack.ExtType:
    if isinstance(value, Unreadable):
        return msgpack.ExtType(UNREADABLE_TYPE, str(value.error).encode())
    raise TypeError(f"found a value of type {type(value).__name__}, expected what was decoded")
