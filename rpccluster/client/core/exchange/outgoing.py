"""Packs a method and its params, and refuses calls that no server would take. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from rpccluster.client.core.exchange.bounded import BOUND_BYTES, PlainBody, plain_body
from rpccluster.client.core.exchange.dialect import DIALECT, Dialect
from rpccluster.protocol.outline import NO_CONTAINER, Bounds, depth_exceeds

__all__ = ["BOUNDS", "body_of", "body_packer", "check_outgoing", "not_a_str", "unchecked_size"]

#: The defaults of clients, and of servers.
BOUNDS = Bounds(16 * 1024 * 1024, 100)
_HEAD_BYTES = 7  # of a request, before its method

_MSGID_BYTES = {0xCC: 2, 0xCD: 3, 0xCE: 5}  # of one above 127, by its first byte
_SHALLOW_DEPTH = 4  # of a call, its own array and that of its params among it, whose params are all shallow
_PLAIN_TYPES = frozenset({int, float, str, bytes, bool, type(None)})


def unchecked_size(bounds: Bounds) -> int:
    """Return the size up to which a packed call passes no limit, since each container in it takes a byte."""
    return min(bounds.max_depth, bounds.max_size) - _HEAD_BYTES


def check_outgoing(size: int, data: bytes, params: Iterable[Any], bounds: Bounds) -> None:
    """Raise ValueError if a call of ``size`` bytes, with ``params`` in its ``data``, is too large or too deep."""
    if size > bounds.max_size:
        raise ValueError(f"found a message of {size} bytes, expected at most {bounds.max_size} (max_message_size)")
    if _PLAIN_TYPES.issuperset(map(type, params)) or len(data.translate(None, NO_CONTAINER)) < bounds.max_depth:
        return
    if bounds.max_depth >= _SHALLOW_DEPTH and all(map(_is_shallow, params)):
        return
    if depth_exceeds(params, bounds.max_depth - 1):
        raise ValueError(f"found a message nested more than {bounds.max_depth} deep (max_depth)")


def not_a_str(method: object) -> TypeError:
    """Make the error for a ``method`` that is no string."""
    return TypeError(f"found a method of type {type(method).__name__}, expected str")


def _is_shallow(value: Any) -> bool:
    """Return whether ``value`` is plain, or a container of plain values or of one type of such containers."""
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind is not list and kind is not tuple:
        return kind in _PLAIN_TYPES
    if _PLAIN_TYPES.issuperset(map(type, value)):
        return True
    kinds = set(map(type, value))
    if kinds == {dict}:
        value = map(dict.values, value)
    elif not kinds <= {list, tuple}:
        return False
    return _PLAIN_TYPES.issuperset(map(type, chain.from_iterable(value)))


def body_packer(bounds: Bounds = BOUNDS, dialect: Dialect = DIALECT) -> Callable[[str, Iterable[Any]], bytes]:
    """Make a function that packs a method and its params for `Calls.packed_request`; it raises as `Calls.request`."""
    pack = dialect.packer().pack
    common = (lambda method, params: None) if dialect.wire is None else dialect.wire.pack_body
    tight = Bounds(bounds.max_size - BOUND_BYTES, bounds.max_depth - 1)
    unchecked = unchecked_size(tight)

    def body(method: str, params: Iterable[Any]) -> bytes:
        if type(method) is not str:
            raise not_a_str(method)
        data: bytes | None = common(method, params)
        if data is None:
            data = pack(method) + pack(params)
        if len(data) > unchecked:
            try:
                check_outgoing(_HEAD_BYTES + len(data), data, params, tight)
            except ValueError:
                check_outgoing(_HEAD_BYTES + len(data), data, params, bounds)
                return PlainBody(data)
        return data

    return body


def body_of(request: bytes) -> bytes:
    """Return the packed method and params of a ``request`` of `Calls`, for `Calls.packed_request`."""
    return plain_body(request[2 + _MSGID_BYTES.get(request[2], 1) :])
