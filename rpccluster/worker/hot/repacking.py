"""Packs decoded calls that have not begun, for the worker that takes their connection. Pure; runs in the worker."""

from __future__ import annotations

from typing import Any, Callable

import msgpack

from rpccluster.protocol.codec import make_packer
from rpccluster.protocol.messages import UNREADABLE_TYPE, Unreadable
from rpccluster.protocol.shared import Packed
from rpccluster.worker.hot.control.terms import Terms

__all__ = ["NO_MESSAGE", "packed_again"]

NO_MESSAGE = b"\xc1"  # no MessagePack: the adopter answers the calls before it, and closes the connection


def packed_again(calls: list[Any]) -> list[bytes | Packed]:
    """Pack each of ``calls``. A call that would be refused in its turn is refused by the adopter, too.

    Raises TypeError or ValueError for a value that cannot be packed, or is too deep.
    """
    pack = make_packer(_as_extension).pack
    return [_packed_again(call, pack) for call in calls]


def _packed_again(call: Any, pack: Callable[[Any], bytes]) -> bytes | Packed:
    if type(call) is Packed:
        return call
    return pack(call) if type(call) is list else NO_MESSAGE


def _as_extension(value: Any) -> msgpack.ExtType | dict[str, Any]:
    if isinstance(value, Terms):
        return value.options()
    if isinstance(value, Unreadable):
        return msgpack.ExtType(UNREADABLE_TYPE, str(value.error).encode())
    raise TypeError(f"found a value of type {type(value).__name__}, expected a decoded value")
