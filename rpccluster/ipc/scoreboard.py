"""The scoreboard: shared memory with a row of cells for each child of the master, made before the fork.

A row has one writer, its child; the master clears it before and after, and writes those cells that say so. Its first
cells mean the same for every kind of child; the others belong to the kind. Cells are aligned 64-bit words, written by
plain stores: readers see whole values, which may be a moment old. Any process of one cluster.
"""

from __future__ import annotations

import enum
import mmap

from rpccluster.system import make_private

__all__ = [
    "FIRST_OWN_CELL",
    "HEADER_CELLS",
    "LIMITS",
    "MOST_DESCRIPTORS",
    "MOST_ROWS",
    "ROW_CELLS",
    "Cell",
    "CommonCell",
    "CoordinatorCell",
    "Row",
    "RowState",
    "Scoreboard",
    "TaskCell",
    "is_full",
]

MOST_ROWS = 1536  # three times the most workers: present ones, successors, slowly retiring ones
MOST_DESCRIPTORS = 3 * MOST_ROWS + 256  # a master works with: three for each worker there may be; clients, connections
ROW_CELLS = 48  # 384 bytes: rows of two writers never share a cache line
HEADER_CELLS = 32
RATE_COUNTS = 128  # of each row, in a part of their own: passed and refused calls of each rate
RATE_CELLS = 3 * RATE_COUNTS  # with what the child knows of each rate behind them
_CELL_BYTES = 8

ROWS_IN_USE = 0
ACCEPT_COUNTER = 1


class RowState(enum.IntEnum):
    """The state of a child, for siblings that share listeners with it."""

    FREE = 0
    BOOTING = 1
    ACCEPTING = 2
    NOT_ACCEPTING = 3


class CommonCell(enum.IntEnum):
    """The first cells of each row, for children of every kind. Times are monotonic nanoseconds."""

    STATE = 0
    HEARTBEAT = 1
    RSS_BYTES = 2
    RUNNING = 3  # what the child works on, as a number that its kind defines; 0 = nothing
    HUNG_IN = 4  # as RUNNING; the child writes it when the master asks where it hangs
    SETTINGS_VERSION = 5  # that calls see which begin now
    STALLS = 6  # how often a loop was held up for longer than stall_warning


FIRST_OWN_CELL = 8  # the cells before it are common; some are spare


class Cell(enum.IntEnum):
    """The own cells of an RPC worker, behind the common ones. Its ``RUNNING`` is the method's number + 1."""

    CONNECTIONS = FIRST_OWN_CELL  # open now
    ACTIVE_CALLS = 9  # begun and not ended
    CALLS = 10  # ended
    ERRORS = 11  # ended because they raised, or had no method
    ACCEPTED = 12  # connections, ever
    ACCEPT_WAKEUPS = 13  # for the listeners: what not sharing them well would cost
    ADOPTED = 14  # connections that came from another worker
    HANDED_OVER = 15  # connections given away
    DROPPED_REPLIES = 16  # whose caller was gone
    CONNECTION_LIMIT = 17  # worker_connections, or what RLIMIT_NOFILE leaves
    # How often each limit has been reached:
    NOT_MESSAGEPACK_RPC = 18  # connections closed for their bytes, calls refused for their params
    MAX_MESSAGE_SIZE = 19  # calls refused, or connections closed
    MAX_DEPTH = 20  # likewise
    MAX_PENDING_CALLS = 21  # pauses of a connection
    MAX_GREENLETS = 22  # likewise
    WORKER_CONNECTIONS = 23  # times that connections were left waiting
    DESCRIPTORS = 24  # connections that could not be accepted, or not given away
    UNREAD_REPLIES = 25  # pauses of a connection
    IDLE_TIMEOUT = 26  # connections closed
    MESSAGE_TIMEOUT = 27  # likewise
    WRITE_TIMEOUT = 28  # likewise
    CALL_TIMEOUT = 29  # calls ended
    THREAD_QUEUE = 30  # calls held back
    GREENLETS_TAKEN_AT = 31  # since when calls hold all max_greenlets and none has ended; 0 = they do not
    THREADS_LOST = 32  # now
    CHALLENGES_FAILED = 33  # connections closed
    FORBIDDEN = 34  # calls refused
    RATE_LIMITED = 35  # likewise


class TaskCell(enum.IntEnum):
    """The own cells of a task process. Its ``RUNNING`` is the number of the task that it runs, while nobody knows more.

    The process sets ``DEADLINE`` and ``STARTED_AT`` before ``RUNNING``, clears ``DEADLINE`` when the task has ended,
    and ``RUNNING`` when it has told how. The master kills it for the task n only if ``RUNNING`` is still n once
    ``CONDEMNED`` is n; the process begins no other one then. So no task is killed in place of another.
    """

    DEADLINE = FIRST_OWN_CELL  # monotonic nanoseconds at which the task is killed; 0 = never
    STARTED_AT = 9  # of the task, in nanoseconds of the epoch
    TASKS = 10  # ended
    BEGUN = 12  # the number of the task that it has begun last, written before ``RUNNING``
    CONDEMNED = 16  # by the master: the number of the task with which the process ends
    LEAVES = 17  # by the master: 1 = begin no other task, and end
    MOST_TASKS = 18  # by the master: end after so many; 0 = never
    SETTINGS = 19  # by the master: the newest version of the settings that it has sent


class CoordinatorCell(enum.IntEnum):
    """The own cell of the coordinator, behind those of an RPC worker, which it has, too."""

    SIGN_OF_LIFE = 47  # monotonic nanoseconds: it has come round to the store last


#: The cells of the limits by their names in `status`, which are options' names where there is an option.
LIMITS = {
    cell.name.lower(): cell
    for cell in Cell
    if Cell.NOT_MESSAGEPACK_RPC <= cell <= Cell.THREAD_QUEUE or Cell.CHALLENGES_FAILED <= cell <= Cell.RATE_LIMITED
}

FULL_AFTER_NS = 100_000_000  # a call that ends makes room: a worker is full if none has ended for this long


def is_full(greenlets_taken_at: int, now_ns: int) -> bool:
    """Return whether a worker can begin no call, and so accepts and adopts no connection, by its cell."""
    return greenlets_taken_at != 0 and now_ns - greenlets_taken_at >= FULL_AFTER_NS


_ZEROS = memoryview(bytes(ROW_CELLS * _CELL_BYTES)).cast("Q")


class Row:
    """One child's cells: ``row[CommonCell.STATE]``; hot code keeps ``cells`` and plain integers."""

    def __init__(self, cells: memoryview) -> None:
        self.cells = cells

    def clear(self) -> None:
        """Set every cell to 0."""
        self.cells[:] = _ZEROS

    def __getitem__(self, cell: enum.IntEnum) -> int:
        value: int = self.cells[cell]
        return value

    def __setitem__(self, cell: enum.IntEnum, value: int) -> None:
        self.cells[cell] = value


class Scoreboard:
    """A header and ``rows`` rows in anonymous shared memory; untouched pages cost nothing."""

    def __init__(self, rows: int) -> None:
        size = (HEADER_CELLS + rows * ROW_CELLS + (rows + 1) * RATE_CELLS) * _CELL_BYTES
        self._memory = mmap.mmap(-1, size)
        self.cells = memoryview(self._memory).cast("Q")
        self._taken: set[int] = set()
        self._rows = rows

    @property
    def rows_in_use(self) -> int:
        """The number of the highest row with a child, plus one."""
        return int(self.cells[ROWS_IN_USE])

    @property
    def accept_counter(self) -> int:
        """Number of connections that all workers have accepted, less lost updates."""
        return int(self.cells[ACCEPT_COUNTER])

    def leave(self) -> None:
        """Detach a process that no longer takes part: it reads and writes a private copy now. Raises OSError."""
        make_private(self._memory)

    def count_accept(self) -> None:
        """Count one more accepted connection."""
        self.cells[ACCEPT_COUNTER] += 1

    def row(self, number: int) -> Row:
        """Return the row with ``number``."""
        start = HEADER_CELLS + number * ROW_CELLS
        return Row(self.cells[start : start + ROW_CELLS])

    def rate_cells(self, number: int) -> memoryview:
        """Return the cells of the row with ``number`` for the rates of its child's calls.

        Behind the last row are those of all children that have ended.
        """
        start = HEADER_CELLS + self._rows * ROW_CELLS + number * RATE_CELLS
        return self.cells[start : start + RATE_CELLS]

    def take_row(self) -> int | None:
        """Clear the lowest free row and return its number; None if all are taken. Only the master calls it."""
        number = next((n for n in range(self._rows) if n not in self._taken), None)
        if number is not None:
            self._taken.add(number)
            self.row(number).clear()
            self.cells[ROWS_IN_USE] = max(self._taken) + 1
        return number

    def all_rates(self, count: int) -> list[int]:
        """Return the first ``count`` cells for rates, added up over all children, the ended ones among them."""
        ended = self.rate_cells(self._rows)[:count].tolist()
        return [sum(cells) for cells in zip(ended, *(self.rate_cells(n)[:count] for n in range(self.rows_in_use)))]

    def _keep_rates(self, number: int) -> None:
        """Add the counts for rates of a child that has ended to those of the others, so that the sum stays."""
        ended, own = self.rate_cells(self._rows), self.rate_cells(number)
        counts = own.tolist()
        for place, value in enumerate(counts) if any(counts) else ():
            if value:
                ended[place] += value if place < RATE_COUNTS else 0
                own[place] = 0

    def free_row(self, number: int) -> None:
        """Give a row back when its child has ended. Only the master calls it."""
        self._taken.discard(number)
        self.row(number).clear()
        self._keep_rates(number)
        self.cells[ROWS_IN_USE] = max(self._taken, default=-1) + 1
