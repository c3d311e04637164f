"""The process groups of a master's children, in shared memory that outlives the master. The master and its warden.

The master writes a row when a child is forked, and clears it when the child has ended, before it reaps it: only then
may another group get that number. The children have no copy, so that none can have the warden kill whom it likes.
"""

from __future__ import annotations

import contextlib
import mmap
import secrets
from collections.abc import Iterator
from typing import NamedTuple

from rpccluster.ipc.scoreboard import MOST_ROWS

__all__ = ["GroupTable", "LedGroup"]

_ROW_CELLS = 2  # the leader, and when it was started
_CELL_BYTES = 8


class LedGroup(NamedTuple):
    """A process group: the pid of its leader, and when that was started (`rpccluster.system.System.started`)."""

    leader: int
    started: int


class GroupTable:
    """A row for each row of the scoreboard. ``token`` begins each mark that this master gives to a child."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, MOST_ROWS * _ROW_CELLS * _CELL_BYTES)
        self._cells = memoryview(self._memory).cast("Q")
        self.token = secrets.token_hex(8)
        self._keep_from_forks()

    def mark(self, serial: int) -> str:
        """Return the mark of the child with ``serial``; no other child of any master gets it."""
        return f"{self.token}.{serial}"

    def enter(self, row: int, group: LedGroup) -> None:
        """Write ``group`` into ``row``."""
        self._cells[row * _ROW_CELLS + 1] = group.started
        self._cells[row * _ROW_CELLS] = group.leader

    def clear(self, row: int) -> None:
        """Empty ``row``."""
        self._cells[row * _ROW_CELLS] = 0

    def groups(self) -> list[LedGroup]:
        """Return the groups that are not cleared."""
        cells = self._cells
        found = (LedGroup(cells[at], cells[at + 1]) for at in range(0, len(cells), _ROW_CELLS))
        return [group for group in found if group.leader]

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Let a process that is forked during the ``with`` block have this memory, too."""
        self._advise("MADV_DOFORK")
        try:
            yield
        finally:
            self._keep_from_forks()

    def _keep_from_forks(self) -> None:
        self._advise("MADV_DONTFORK")

    def _advise(self, name: str) -> None:
        """Call madvise(2). PyPy cannot: there the children have a copy that they do not use."""
        if hasattr(mmap, name):
            self._memory.madvise(getattr(mmap, name))
