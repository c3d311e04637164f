"""Finds the end of a message that arrives in pieces, without decoding it. Sans-I/O.

A declared length costs no memory here: lengths are only added up and compared with the bounds. The outline reads the
structure alone; the Unpacker judges the content of strings and extensions.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, Union

from rpccluster.errors import LimitExceeded, ProtocolError

__all__ = ["Bounds", "Outline", "depth_exceeds", "too_deep", "too_large"]

Data = Union[bytes, bytearray]


class Bounds(NamedTuple):
    """The options that bound a message."""

    max_size: int  # bytes
    max_depth: int  # containers in each other, the message's own array among them


def too_large(bounds: Bounds) -> LimitExceeded:
    """Make the error for a message that has, or declares, more bytes than ``bounds`` allow."""
    return LimitExceeded("max_message_size", f"found a message of more than {bounds.max_size} bytes (max_message_size)")


def too_deep(bounds: Bounds) -> LimitExceeded:
    """Make the error for a message that is nested deeper than ``bounds`` allow."""
    return LimitExceeded("max_depth", f"found a message nested more than {bounds.max_depth} deep (max_depth)")


def _sizes_of_plain() -> bytes:
    """Map each first byte to the size of its value, if that byte alone tells it and no other lies inside; else 0."""
    sizes = bytearray(256)
    for first in (*range(0x81), 0x90, 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)):
        sizes[first] = 1
    for first in range(0xA0, 0xC0):
        sizes[first] = 1 + (first & 0x1F)
    for number, first in enumerate(range(0xD4, 0xD9)):  # extensions of 1, 2, 4, 8, 16 bytes
        sizes[first] = 2 + (1 << number)
    for first, size in ((0xCA, 5), (0xCB, 9), (0xCC, 2), (0xCD, 3), (0xCE, 5), (0xCF, 9)):
        sizes[first] = size
    for number, first in enumerate(range(0xD0, 0xD4)):
        sizes[first] = 1 + (1 << number)
    return bytes(sizes)


PLAIN = _sizes_of_plain()
#: first byte: size of the length field that follows, size of the value beside its content
BLOCKS = {0xC4: (1, 2), 0xC5: (2, 3), 0xC6: (4, 5), 0xC7: (1, 3), 0xC8: (2, 4), 0xC9: (4, 6)}
BLOCKS.update({0xD9: (1, 2), 0xDA: (2, 3), 0xDB: (4, 5)})
#: first byte: size of the count that follows, values for each counted one
CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
_CONTAINER_TYPES = {list, tuple, dict}
#: All bytes that begin no container.
NO_CONTAINER = bytes(byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF))
WINDOW_BYTES = 1024  # bytes that one regex search splits into plain values
FEW = 8  # if no more values are to come, they are passed one by one


def _regex_of_plain() -> re.Pattern[bytes]:
    """Compile the pattern of one whole plain value, or else of everything that follows, as its only group."""
    firsts: dict[int, bytes] = {}
    for first, size in enumerate(PLAIN):
        if size and first not in (0x80, 0x90):
            firsts[size] = firsts.get(size, b"") + re.escape(bytes([first]))
    patterns = [b"[%s].{%d}" % (firsts[size], size - 1) for size in sorted(firsts)]
    return re.compile(b"|".join(patterns) + b"|(.+)", re.DOTALL)


PLAIN_VALUES = _regex_of_plain()
#: runs of one-byte values, without and with empty containers
_RUN = re.compile(rb"[\x00-\x7f\xa0\xc0\xc2\xc3\xe0-\xff]*")
RUN_WITH_EMPTY = re.compile(rb"[\x00-\x80\x90\xa0\xc0\xc2\xc3\xe0-\xff]*")


class Outline:
    """Follows one message through the bytes that have come so far.

    `advance` gets no further until ``resume_at`` bytes have come. ``passed`` counts the bytes behind it, ``owed`` the
    values that must still come; both hold after `LimitExceeded`, too.
    """

    __slots__ = ("_bounds", "_open", "owed", "passed", "resume_at")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.passed = 0
        self._open = [1]  # for each open container, the values still to come; first the message's own
        self.owed = 1  # their sum: at least as many bytes are still to come
        self.resume_at = 1

    def advance(self, data: Data) -> int:
        """Go on through ``data``, the message from its first byte. Returns its length once it is whole, else 0.

        Raises `ProtocolError` for a byte that MessagePack does not have, and for a message that passes its bounds.
        """
        size = len(data)
        while self.resume_at <= size:
            first = data[self.passed]
            plain = PLAIN[first]
            if plain == 1:
                self._pass_run(data, min(size, self.passed + self._open[-1]))
            elif plain and self._open[-1] > FEW:
                self._pass_several(data, size)
            elif plain:
                self._pass_block(self.passed + plain, size)
            else:
                self._take_header(first, data, size)
            if not self._open:
                return self.passed
        return 0

    def _take_header(self, first: int, data: Data, size: int) -> None:
        """Pass a header with a length: enter the container, or pass the block."""
        at = self.passed
        if 0x80 <= first <= 0x9F:
            self._enter(at + 1, (first & 0x0F) * (1 if first >= 0x90 else 2))
            return
        width, extra = BLOCKS.get(first) or CONTAINERS.get(first) or (0, 0)
        if not width:
            raise ProtocolError(f"found the byte {first:#x}, which MessagePack does not have")
        if at + 1 + width > size:
            self.resume_at = at + 1 + width
            return
        length = int.from_bytes(data[at + 1 : at + 1 + width], "big")
        if first in BLOCKS:
            self._pass_block(at + extra + length, size)
        else:
            self._enter(at + 1 + width, length * extra)

    def _pass_run(self, data: Data, end: int) -> None:
        """Pass all one-byte values that lie before ``end``."""
        runs = RUN_WITH_EMPTY if len(self._open) <= self._bounds.max_depth else _RUN
        run = runs.match(data, self.passed, end)
        if run is None or run.end() == self.passed:
            raise too_deep(self._bounds)
        self._pass(run.end(), run.end() - self.passed)

    def _pass_several(self, data: Data, size: int) -> None:
        """Pass all plain values that come next, within one window."""
        at = self.passed
        end = min(size, at + WINDOW_BYTES)
        found = PLAIN_VALUES.findall(data, at, end)
        rest = len(found[-1])
        values = len(found) - bool(rest)
        if 0 < values <= self._open[-1]:
            self._pass(end - rest, values)
        else:
            self._pass_block(at + PLAIN[data[at]], size)

    def _pass_block(self, end: int, size: int) -> None:
        if end > size:
            self._check(end + self.owed - 1)
            self.resume_at = end
        else:
            self._pass(end, 1)

    def _pass(self, end: int, values: int) -> None:
        """Move on to ``end``, behind ``values`` more whole values."""
        self.passed = end
        self.owed -= values
        self._check(end + self.owed)
        still_open = self._open
        still_open[-1] -= values
        while still_open and not still_open[-1]:
            still_open.pop()
        self.resume_at = end + 1

    def _enter(self, end: int, values: int) -> None:
        if len(self._open) > self._bounds.max_depth:
            raise too_deep(self._bounds)
        self.owed += values - 1
        self._open[-1] -= 1
        self._open.append(values)
        self._pass(end, 0)

    def _check(self, least: int) -> None:
        """Raise if a message of at least ``least`` bytes is too large."""
        if least > self._bounds.max_size:
            raise too_large(self._bounds)


def depth_exceeds(value: object, most: int) -> bool:
    """Return whether ``value`` nests more than ``most`` lists, tuples and dicts, itself counted."""
    containers: list[Any] = [value] if type(value) in _CONTAINER_TYPES else []
    for _ in range(most):
        if not containers:
            return False
        inside: list[Any] = []
        for container in containers:
            parts = container.values() if type(container) is dict else container
            if not _CONTAINER_TYPES.isdisjoint(map(type, parts)):
                inside += [part for part in parts if type(part) in _CONTAINER_TYPES]
        containers = inside
    return bool(containers)
