"""What a client refuses to send, since no server would take it. Pure; any thread."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from rpccluster.protocol.outline import NO_CONTAINER, Bounds, depth_exceeds

__all__ = ["BOUNDS", "HEAD_BYTES", "check_outgoing", "unchecked_size"]

#: The defaults of clients, and of servers.
BOUNDS = Bounds(16 * 1024 * 1024, 100)
HEAD_BYTES = 7  # of a request, before its method

_SHALLOW_DEPTH = 4  # of a call, its own array and that of its params among it, whose params are all shallow
_PLAIN_TYPES = frozenset({int, float, str, bytes, bool, type(None)})


def unchecked_size(bounds: Bounds) -> int:
    """A packed call of so many bytes passes no bound: each container in it takes one."""
    return min(bounds.max_depth, bounds.max_size) - HEAD_BYTES


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


def _is_shallow(value: Any) -> bool:
    """Whether it is plain, or a container of plain values, or one of nothing but such dicts, or such sequences."""
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
