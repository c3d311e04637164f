"""The note that a keeper leaves to its successor: which sessions the connections have that move to it.

It stands in a file in memory, which the master owns. A record is added before its connection goes, and stays until the
next keeper that leaves begins a note of its own: if the successor is killed before it has all connections, the one
after it finds the rest. Runs in the keeper.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgpack

__all__ = ["Note"]


class Note:
    """The note in one file: what the keeper before this one has left, and what this one leaves."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is the file's."""
        self._descriptor = descriptor
        self._found = dict(_read(descriptor))
        self._end = -1  # where the next record goes; -1 before the first

    def take(self, inode: int) -> tuple[bytes | None, list[bytes]] | None:
        """Return the own session and all sessions of the connection whose socket has the number ``inode``."""
        return self._found.pop(inode, None)

    def add(self, inode: int, own: bytes | None, sessions: Iterable[bytes]) -> None:
        """Leave the sessions of a connection that goes now. Raises OSError without memory."""
        if self._end < 0:
            self._end = 0
            os.ftruncate(self._descriptor, 0)
            for each, (theirs, all_theirs) in self._found.items():
                self._write(each, theirs, all_theirs)
        self._write(inode, own, sessions)

    def _write(self, inode: int, own: bytes | None, sessions: Iterable[bytes]) -> None:
        record = msgpack.packb([inode, own, sorted(sessions)])
        self._end += os.pwrite(self._descriptor, record, self._end)


def _read(descriptor: int) -> Iterable[tuple[int, tuple[bytes | None, list[bytes]]]]:
    """Yield the records of a note, up to one that its writer has not completed."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    try:
        for inode, own, sessions in unpacker:
            yield inode, (own, sessions)
    except (ValueError, TypeError, msgpack.UnpackException):
        return
