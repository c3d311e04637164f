"""The scoreboard: shared memory with a row of cells for each child of the master, made before the fork.

A row has one writer, its child (the master clears it before and after). Its first cells mean the same for every kind,
the others are the kind's own. Cells are aligned 64-bit words written by plain stores: readers see whole values, maybe
a moment old. Any process of one cluster.
"""

from __future__ import annotations

import enum
import mmap

from rpccluster.system import make_private

__all__ = [
    "FIRST_OWN_CELL",
    "HEADER_CELLS",
    "LIMITS",
    "ROW_CELLS",
    "Cell",
    "CommonCell",
    "Row",
    "RowState",
    "Scoreboard",
    "is_full",
]

ROW_CELLS = 32  # 256 bytes: rows of two writers never share a cache line
HEADER_CELLS = 32
_CELL_BYTES = 8

ROWS_IN_USE = 0
ACCEPT_COUNTER = 1


class RowState(enum.IntEnum):
    """What a child is, for its siblings who may share listeners with it."""

    FREE = 0
    BOOTING = 1
    ACCEPTING = 2
    NOT_ACCEPTING = 3


class CommonCell(enum.IntEnum):
    """The first cells of each row, of whatever kind the child is. Times are monotonic nanoseconds."""

    STATE = 0
    HEARTBEAT = 1
    RSS_BYTES = 2
    RUNNING = 3  # what it works on, by a number that its kind gives a meaning; 0 = nothing
    HUNG_IN = 4  # likewise, written by the child when the master asks it where it hangs
    DEADLINE = 5  # when it should be through with that; 0 = never


FIRST_OWN_CELL = 8  # those before it are common, and some are left for what will be


class Cell(enum.IntEnum):
    """The cells of an RPC worker's own, behind the common ones; ``RUNNING`` is its method's number + 1."""

    CONNECTIONS = FIRST_OWN_CELL
    ACTIVE_CALLS = 9
    CALLS = 10
    ERRORS = 11
    ACCEPTED = 12
    ACCEPT_WAKEUPS = 13
    ADOPTED = 14
    HANDED_OVER = 15
    DROPPED_REPLIES = 16
    CONNECTION_LIMIT = 17
    # How often each limit has been reached:
    NOT_MESSAGEPACK_RPC = 18
    MAX_MESSAGE_SIZE = 19
    MAX_DEPTH = 20
    MAX_PENDING_CALLS = 21
    MAX_GREENLETS = 22
    WORKER_CONNECTIONS = 23
    DESCRIPTORS = 24
    UNREAD_REPLIES = 25
    IDLE_TIMEOUT = 26
    MESSAGE_TIMEOUT = 27
    WRITE_TIMEOUT = 28
    CALL_TIMEOUT = 29
    GREENLETS_TAKEN_AT = 30  # since when calls have all max_greenlets, and none has ended; 0 = they have not


#: What `status` calls them: where there is one, the option's name.
LIMITS = {cell.name.lower(): cell for cell in Cell if Cell.NOT_MESSAGEPACK_RPC <= cell <= Cell.CALL_TIMEOUT}

FULL_AFTER_NS = 100_000_000  # a call that ends makes room: only where none does for so long a worker is full


def is_full(greenlets_taken_at: int, now_ns: int) -> bool:
    """Whether a worker can begin no call for now, told from its cell; it accepts and adopts no connection."""
    return greenlets_taken_at != 0 and now_ns - greenlets_taken_at >= FULL_AFTER_NS


class Row:
    """One child's cells: ``row[CommonCell.STATE]``; hot code keeps ``cells`` and plain integers."""

    def __init__(self, cells: memoryview) -> None:
        self.cells = cells

    def clear(self) -> None:
        """Set every cell to 0."""
        for cell in range(ROW_CELLS):
            self.cells[cell] = 0

    def __getitem__(self, cell: enum.IntEnum) -> int:
        return int(self.cells[cell])

    def __setitem__(self, cell: enum.IntEnum, value: int) -> None:
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
        """No row at or above this number has a child."""
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
        """Give a row back when its child is gone."""
        self._taken.discard(number)
        self.row(number).clear()
        self.cells[ROWS_IN_USE] = max(self._taken, default=-1) + 1
