"""The row of one process that counts: the process takes a free row at its start, and is its only writer.

A row is taken while its process has a lock on one byte of the file, which the kernel drops when the process ends,
however it ends. So no row is ever cleared, and none is lost. Runs in the workers and in the master.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import count

from rpccluster import system
from rpccluster.metrics.layout import (
    BLOCK_BYTES,
    BLOCK_CELLS,
    CELLS_AT,
    MOST_BLOCKS,
    NAME_BYTES,
    OTHER,
    ROW_BYTES,
    Block,
    OwnCell,
)

__all__ = ["Row", "encoded"]


class Row:
    """A row that this process has taken, until it ends. The descriptor stays open all the time."""

    def __init__(self, descriptor: int) -> None:
        """Take the first free row of the file. Raises OSError."""
        self.place = next(place for place in count() if system.lock_byte(descriptor, place))
        system.reach(descriptor, (self.place + 1) * ROW_BYTES)
        self._memory = mmap.mmap(descriptor, ROW_BYTES, offset=self.place * ROW_BYTES)
        self._cells = memoryview(self._memory)[CELLS_AT:].cast("Q")
        self._places: dict[bytes, int] = dict(self._named())
        self.own = self._cells[:BLOCK_CELLS]
        self.block(Block.OWN, "")
        self.own[OwnCell.CONNECTIONS] = 0  # of a process that has ended
        self.other = self.block(Block.METHOD, OTHER)

    def _named(self) -> Iterator[tuple[bytes, int]]:
        for place in range(int(self._cells[OwnCell.BLOCKS])):
            yield self._memory[place * NAME_BYTES :][:NAME_BYTES].rstrip(b"\0"), place

    def block(self, kind: Block, name: str) -> memoryview:
        """Return the cells of the block with this name, which the row may have already.

        A method that finds no room, or whose name does, counts as `OTHER`; anything else gets cells that nobody reads.
        """
        full_name = encoded(kind, name)
        place = self._places.get(full_name)
        if place is None:
            place = len(self._places)
            if place == MOST_BLOCKS or len(full_name) > NAME_BYTES:
                return self.other if kind is Block.METHOD else memoryview(bytearray(BLOCK_BYTES)).cast("Q")
            self._memory[place * NAME_BYTES : place * NAME_BYTES + len(full_name)] = full_name
            self._places[full_name] = place
            self._cells[OwnCell.BLOCKS] = place + 1
        return self._cells[place * BLOCK_CELLS : (place + 1) * BLOCK_CELLS]

    def leave(self) -> None:
        """Count for nobody from now on, in a process that the service has forked. Raises OSError."""
        system.make_private(self._memory)


def encoded(kind: Block, name: str) -> bytes:
    """Return the whole name of a block, as it stands in the file."""
    return (kind.value + name).encode("utf-8", "surrogateescape")
