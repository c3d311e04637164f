"""What a coordinator leaves to the next one: the session in its store. In memory that the master owns.

Two places take turns, each with a sum of its content, so that one that is killed while it writes leaves the one before.
Only the coordinator has this memory, since whoever has a session can end it. Runs in the coordinator, the only writer.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib

__all__ = ["Memory"]

_PLACE_BYTES = 2048
_HEAD = struct.Struct("=QII")  # turn, sum, length
_SUMMED = struct.Struct("=Q")


class Memory:
    """The memory in one file: the session that was last left in the store of an address."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is the file's, which an earlier coordinator may have written. Raises OSError."""
        if os.fstat(descriptor).st_size < 2 * _PLACE_BYTES:
            os.ftruncate(descriptor, 2 * _PLACE_BYTES)
        self._memory = mmap.mmap(descriptor, 2 * _PLACE_BYTES)
        self._turn, self._content = max(self._read(0), self._read(1))

    def recall(self, address: str) -> bytes:
        """Return what was remembered of the store at ``address``; nothing if it was another one."""
        before, _, rest = self._content.partition(b"\0")
        return rest.partition(b"\0")[2] if before == address.encode() else b""

    @property
    def member(self) -> str:
        """The name under which the registry lists this cluster, with the session; empty if it does not."""
        return self._content.partition(b"\0")[2].partition(b"\0")[0].decode()

    def keep_member(self, name: str) -> None:
        """Remember the name under which the registry lists this cluster."""
        address, _, rest = self._content.partition(b"\0")
        self._keep(b"\0".join([address, name.encode(), rest.partition(b"\0")[2]]))

    def keep(self, address: str, session: bytes) -> None:
        """Remember ``session`` of the store at ``address``. Raises ValueError if that is too long."""
        is_same = self._content.partition(b"\0")[0] == address.encode()
        self._keep(b"\0".join([address.encode(), self.member.encode() if is_same else b"", session]))

    def _keep(self, content: bytes) -> None:
        if content == self._content:
            return
        if len(content) > _PLACE_BYTES - _HEAD.size:
            raise ValueError(f"found {len(content)} bytes to remember, expected at most {_PLACE_BYTES - _HEAD.size}")
        self._turn, self._content = self._turn + 1, content
        start = self._turn % 2 * _PLACE_BYTES
        head = _HEAD.pack(self._turn, _sum(self._turn, content), len(content))
        self._memory[start : start + _HEAD.size + len(content)] = head + content

    def _read(self, place: int) -> tuple[int, bytes]:
        start = place * _PLACE_BYTES
        turn, found, length = _HEAD.unpack_from(self._memory, start)
        content = self._memory[start + _HEAD.size : start + min(_HEAD.size + length, _PLACE_BYTES)]
        return (turn, content) if turn and found == _sum(turn, content) else (0, b"")


def _sum(turn: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(_SUMMED.pack(turn)))
