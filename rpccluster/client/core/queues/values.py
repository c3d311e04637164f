"""Looks at what a producer puts before it leaves: the value, its size, and its options.

Owns no connection. A value is what MessagePack has; nothing is ever pickled.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from rpccluster.client.core.queues.lanes import Lane
from rpccluster.protocol.codec import make_packer

__all__ = ["PLAIN", "UNASKED_BYTES", "PutOptions", "is_small", "size_of"]

#: A value of this size is taken by every keeper; before a larger one it is asked for its limit.
UNASKED_BYTES = 65_536

HIGHEST_PRIORITY = 9
_LEAST_INT, _MOST_INT = -(2**63), 2**64 - 1  # the MessagePack specification, "Limitation"
_INT_BYTES = 9
_HEAD_BYTES = 5  # of a string

_packers: deque[Any] = deque()  # none is used by two threads at a time


@dataclass(frozen=True)
class PutOptions:
    """How items are put. Raises TypeError or ValueError for an option that no keeper takes."""

    delay: float | None = None
    priority: int = 0
    expires: float | None = None
    dedup_id: str | None = None
    group: str | None = None
    token: int | None = None

    @classmethod
    def of(cls, *given: Any) -> PutOptions:
        """Make options of the fields in their order; those that say nothing are one object, since most puts have it."""
        return PLAIN if given == _NOTHING else cls(*given)

    def __post_init__(self) -> None:
        for name in ("delay", "expires"):
            _check_seconds(name, getattr(self, name))
        _check_kind("priority", self.priority, int)
        if not 0 <= self.priority <= HIGHEST_PRIORITY:
            raise ValueError(f"found the priority {self.priority}, expected 0 to {HIGHEST_PRIORITY}, which goes first")
        _check_kind("dedup_id", self.dedup_id, str)
        _check_kind("group", self.group, str)
        _check_kind("token", self.token, int)

    def on_wire(self) -> dict[str, Any]:
        """Return those that are no defaults, by their names on the wire."""
        if self is PLAIN:
            return {}
        options = {name: getattr(self, name) for name in ("delay", "expires", "dedup_id", "group", "token")}
        given = {name: value for name, value in options.items() if value is not None}
        return {**given, "priority": self.priority} if self.priority else given

    def numbered(self, lane: Lane) -> dict[str, Any]:
        """Return them for the put of ``lane``, which its number is among."""
        return lane.numbered if self is PLAIN else {**self.on_wire(), **lane.numbered}


def _check_seconds(name: str, value: Any) -> None:
    _check_kind(name, value, int, float)
    if value is not None and not 0 <= value < float("inf"):
        raise ValueError(f"found {name}={value!r}, expected seconds, not negative")


def _check_kind(name: str, value: Any, *kinds: type) -> None:
    if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"found {name} of type {type(value).__name__}, expected {expected}")


_NOTHING = (None, 0, None, None, None, None)
#: Those that say nothing.
PLAIN = PutOptions()


def is_small(value: Any) -> bool:
    """Return whether ``value`` is one of few bytes, by a look at its outside; False where that does not tell."""
    kind = type(value)
    return (kind is bytes or (kind is str and value.isascii())) and len(value) <= UNASKED_BYTES - _HEAD_BYTES


def size_of(value: Any) -> int:
    """Return the bytes that ``value`` has as MessagePack, at least. Raises TypeError if MessagePack has no such value.

    Raises ValueError for one that is nested too deep.
    """
    kind = type(value)
    if kind is bytes or (kind is str and value.isascii()):
        return len(value) + _HEAD_BYTES
    if value is None or kind is bool or kind is float or (kind is int and _LEAST_INT <= value <= _MOST_INT):
        return _INT_BYTES
    try:
        packer = _packers.pop()
    except IndexError:
        packer = make_packer()
    try:
        size = len(packer.pack(value))
    except OverflowError as error:
        raise TypeError(f"found a value that is no MessagePack value: {error}") from None
    except TypeError as error:
        raise TypeError(f"found a value that is no MessagePack value, and items are not pickled: {error}") from None
    _packers.append(packer)
    return size
