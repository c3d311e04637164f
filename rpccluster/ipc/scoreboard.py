"""The scoreboard: shared memory with a row of counters for each worker, made before the fork.

A row has one writer, its worker (the master clears it before and after). Cells are aligned 64-bit words
written by plain stores: readers see whole values, maybe a moment old. Any process of one cluster.
"""

from __future__ import annotations

import enum
import mmap

from rpccluster.system import make_private

__all__ = ["HEADER_CELLS", "LIMITS", "ROW_CELLS", "Cell", "Row", "RowState", "Scoreboard", "is_full"]

ROW_CELLS = 32  # 256 bytes: rows of two writers never share a cache line
HEADER_CELLS = 32
_CELL_BYTES = 8

ROWS_IN_USE = 0
ACCEPT_COUNTER = 1


class RowState(enum.IntEnum):
    """What a worker is, for its siblings who share the listeners with it."""

    FREE = 0
    BOOTING = 1
    ACCEPTING = 2
    NOT_ACCEPTING = 3


class Cell(enum.IntEnum):
    """The cells of a row. Times are monotonic nanoseconds."""

    STATE = 0
    HEARTBEAT = 1
    CONNECTIONS = 2
    ACTIVE_CALLS = 3
    CALLS = 4
    ERRORS = 5
    RSS_BYTES = 6
    RUNNING_METHOD = 7  # its number + 1; 0 = none
    HUNG_IN = 8  # likewise, written by the worker when the master asks it where it hangs
    ACCEPTED = 9
    ACCEPT_WAKEUPS = 10
    ADOPTED = 11
    HANDED_OVER = 12
    DROPPED_REPLIES = 13
    CONNECTION_LIMIT = 14
    # How often each limit has been reached:
    NOT_MESSAGEPACK_RPC = 15
    MAX_MESSAGE_SIZE = 16
    MAX_DEPTH = 17
    MAX_PENDING_CALLS = 18
    MAX_GREENLETS = 19
    WORKER_CONNECTIONS = 20
    DESCRIPTORS = 21
    UNREAD_REPLIES = 22
    IDLE_TIMEOUT = 23
    MESSAGE_TIMEOUT = 24
    WRITE_TIMEOUT = 25
    CALL_TIMEOUT = 26
    GREENLETS_TAKEN_AT = 27  # since when calls have all max_greenlets, and none has ended; 0 = they have not


#: What `status` calls them: where there is one, the option's name.
LIMITS = {cell.name.lower(): cell for cell in Cell if Cell.NOT_MESSAGEPACK_RPC <= cell <= Cell.CALL_TIMEOUT}

FULL_AFTER_NS = 100_000_000  # a call that ends makes room: only where none does for so long a worker is full


def is_full(greenlets_taken_at: int, now_ns: int) -> bool:
    """Whether a worker can begin no call for now, told from its cell; it accepts and adopts no connection."""
    return greenlets_taken_at != 0 and now_ns - greenlets_taken_at >= FULL_AFTER_NS


class Row:
    """One worker's cells: ``row.cells[Cell.CALLS]``; hot code keeps ``cells`` and plain integers."""

    def __init__(self, cells: memoryview) -> None:
        self.cells = cells

    def clear(self) -> None:
        """Set every cell to 0."""
        for cell in range(ROW_CELLS):
            self.cells[cell] = 0

    def __getitem__(self, cell: Cell) -> int:
        return int(self.cells[cell])

    def __setitem__(self, cell: Cell, value: int) -> None:
        self.cells[cell] = value


class Scoreboard:
    """A header and ``rows`` rows in anonymous shared memory; pages never touched cost nothing."""

    def __init__(self, rows: int) -> None:
        size = (HEADER_CELLS + rows * ROW_CELLS) * _CELL_BYTES
        self._memory = mmap.mmap(-1, size)
        self.cells = memoryview(self._memory).cast("Q")
        self._taken: set[int] = set()
        self._rows = rows

    @property
    def rows_in_use(self) -> int:
        """No row at or above this number has a worker."""
        return int(self.cells[ROWS_IN_USE])

    @property
    def accept_counter(self) -> int:
        """Connections accepted by all workers together, modulo lost updates."""
        return int(self.cells[ACCEPT_COUNTER])

    def leave(self) -> None:
        """In a process that no longer takes part: what it reads and writes from now on is its own. Raises OSError."""
        make_private(self._memory)

    def count_accept(self) -> None:
        """Count one more accepted connection."""
        self.cells[ACCEPT_COUNTER] += 1

    def row(self, number: int) -> Row:
        """The row of that number."""
        start = HEADER_CELLS + number * ROW_CELLS
        return Row(self.cells[start : start + ROW_CELLS])

    def take_row(self) -> int | None:
        """The lowest free row's number, cleared; None if all are taken. The master's alone, like `free_row`."""
        number = next((n for n in range(self._rows) if n not in self._taken), None)
        if number is not None:
            self._taken.add(number)
            self.row(number).clear()
            self.cells[ROWS_IN_USE] = max(self._taken) + 1
        return number

    def free_row(self, number: int) -> None:
        """Give a row back when its worker is gone."""
        self._taken.discard(number)
        self.row(number).clear()
        self.cells[ROWS_IN_USE] = max(self._taken, default=-1) + 1
