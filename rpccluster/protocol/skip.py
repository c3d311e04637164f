"""Skips the rest of a message that passes its bounds, so that the messages behind it can still be read.

Counts the values and keeps no bytes. Sans-I/O.
"""

from __future__ import annotations

import struct
import sys

from rpccluster.errors import ProtocolError
from rpccluster.protocol.outline import (
    BLOCKS,
    CONTAINERS,
    FEW,
    PLAIN,
    PLAIN_VALUES,
    RUN_WITH_EMPTY,
    WINDOW_BYTES,
    Bounds,
    too_large,
)

__all__ = ["MOST_MESSAGES", "Skip", "may_resume", "resumed"]

MOST_MESSAGES = 16  # times max_message_size: a message that declares more is no slip, and ends its stream

_STATE = struct.Struct(">QQQ5p")
_MARK = b"\xc7\x1d\x7f"  # an extension: no message begins with one


class Skip:
    """Counts what must still come of one message, as far as its headers have declared it."""

    __slots__ = ("_bounds", "_gap", "_head", "_left", "_owed")

    def __init__(self, owed: int, bounds: Bounds) -> None:
        """``owed`` values must still come; ``bounds`` limit how many bytes they may take."""
        self._bounds = bounds
        self._owed = owed
        self._gap = 0  # bytes of a block whose header has been passed
        self._head = b""  # an incomplete header, too short to tell how long its value is
        self._left = MOST_MESSAGES * bounds.max_size  # bytes that may still be passed

    #: Compares like the size of a long `Partial`.
    size = sys.maxsize

    @property
    def missing(self) -> int:
        """Number of bytes that must come at least."""
        return self._gap + self._owed

    @property
    def data(self) -> bytes:
        """The state in bytes, from which `resumed` restores it in another process."""
        return _MARK + _STATE.pack(self._owed, self._gap, self._left, self._head)

    def pass_over(self, data: bytes | memoryview) -> bytes | None:
        """Return the part of ``data`` behind the message; None if its end has not come yet.

        Raises `ProtocolError` for a byte that MessagePack does not have, and for a message that is far too large.
        """
        at = min(self._gap, len(data))
        self._gap -= at
        self._left -= len(data)
        if self._gap:
            return None
        data = self._head + bytes(data[at:])
        self._head = b""
        at, size = 0, len(data)
        while self._owed and at < size and not self._head:
            self._check(size - at)
            at = self._step(data, at, size)
        self._check(size - at)
        return None if self._owed or self._gap else data[at:]

    def _check(self, unpassed: int) -> None:
        if self._gap + self._owed > self._left + unpassed:
            raise too_large(self._bounds)

    def _step(self, data: bytes, at: int, size: int) -> int:
        """Pass at least one value that begins at ``at``, or its header. Returns where the next one begins."""
        first = data[at]
        plain = PLAIN[first]
        if plain == 1 and self._owed > 1:
            run = RUN_WITH_EMPTY.match(data, at, min(size, at + self._owed))
            assert run is not None, "it matches each plain value of one byte"
            self._owed -= run.end() - at
            return run.end()
        if plain and self._owed > FEW:
            found = PLAIN_VALUES.findall(data, at, min(size, at + WINDOW_BYTES))
            rest = len(found[-1])
            values = len(found) - bool(rest)
            if 0 < values <= self._owed:
                self._owed -= values
                return min(size, at + WINDOW_BYTES) - rest
        if plain:
            return self._pass(at + plain, size, 1)
        return self._pass_header(first, data, at, size)

    def _pass_header(self, first: int, data: bytes, at: int, size: int) -> int:
        if 0x80 <= first <= 0x9F:
            return self._pass(at + 1, size, 1 - (first & 0x0F) * (1 if first >= 0x90 else 2))
        width, extra = BLOCKS.get(first) or CONTAINERS.get(first) or (0, 0)
        if not width:
            raise ProtocolError(f"found the byte {first:#x}, which MessagePack does not have")
        if at + 1 + width > size:
            self._head = data[at:]
            return size
        length = int.from_bytes(data[at + 1 : at + 1 + width], "big")
        if first in BLOCKS:
            return self._pass(at + extra + length, size, 1)
        return self._pass(at + 1 + width, size, 1 - length * extra)

    def _pass(self, end: int, size: int, values: int) -> int:
        """Move on to ``end``, which may not have come yet; ``values`` fewer must come."""
        self._owed -= values
        self._gap = max(0, end - size)
        return min(end, size)


def may_resume(data: bytes) -> bool:
    """Return whether `resumed` could take ``data`` for the state of a `Skip`. No message begins so."""
    return data.startswith(_MARK)


def resumed(data: bytes, bounds: Bounds) -> tuple[Skip | None, bytes]:
    """Restore the `Skip` at the beginning of ``data``, if there is one. Returns it and the rest of ``data``."""
    end = len(_MARK) + _STATE.size
    if not data.startswith(_MARK) or len(data) < end:
        return None, data
    skip = Skip(0, bounds)
    skip._owed, skip._gap, skip._left, skip._head = _STATE.unpack(data[len(_MARK) : end])
    return skip, data[end:]
