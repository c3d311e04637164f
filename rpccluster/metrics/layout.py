"""What stands where in the file of the counters: its rows, their blocks, the cells of each block. Data alone.

A row has up to `MOST_BLOCKS` blocks. A block has a name, whose first letter tells its kind, and cells: aligned 64-bit
words, which are 0 until they count. The file has no other order: the reader finds everything by the names. So cells and
kinds may be added; whatever changes the meaning of these needs another `LAYOUT`, and a file of another one is not used.
"""

from __future__ import annotations

import enum

__all__ = [
    "BLOCK_BYTES",
    "BLOCK_CELLS",
    "BOUNDS_SECONDS",
    "BUCKETS",
    "BUCKET_NS",
    "CELLS_AT",
    "CELL_BYTES",
    "FAILED",
    "FIRST_OUTCOME",
    "LAYOUT",
    "MOST_BLOCKS",
    "NAME_BYTES",
    "OK",
    "OTHER",
    "ROW_BYTES",
    "WORD",
    "Block",
    "Outcome",
    "OwnCell",
    "bucket_of",
]

LAYOUT = "metrics 1"  # the name by which one master passes the file on to the next
CELL_BYTES = 8
WORD = (1 << 8 * CELL_BYTES) - 1  # the largest number in a cell; the next one is 0
BLOCK_CELLS = 64
BLOCK_BYTES = BLOCK_CELLS * CELL_BYTES  # 8 cache lines, which no other block shares
MOST_BLOCKS = 512
NAME_BYTES = 128
CELLS_AT = MOST_BLOCKS * NAME_BYTES  # the names stand before all cells
ROW_BYTES = (
    CELLS_AT + MOST_BLOCKS * BLOCK_BYTES
)  # a multiple of 64 KiB, as a mapping needs; untouched pages cost nothing

OTHER = "other"  # the method of all calls whose method the service does not have


class Block(enum.Enum):
    """The kinds of blocks, by the first letter of their names."""

    OWN = "w"  # the process's own, the first block of each row; it has no more name
    METHOD = "m"  # then the method's name
    LIMIT = "l"  # then the limit's name; its first cell counts
    RESTARTS = "r"  # then group and reason, with a newline between them; its first cell counts
    SETTINGS = "s"  # then the group; its first cell is the version of its settings, while the process lives


# -- a histogram: the sum in nanoseconds, then its buckets
#
# A sum begins anew at 2**64 ns, 584 years: that of one row, which is one worker's, after 213 days in which 1,000
# calls of one method run all the time; Prometheus takes it for a restart. The sum over all rows would be there within
# hours where 512 workers are so busy, so the reader adds up without that limit.

BUCKET_NS = 20_000  # the first bucket ends here, each next one at twice as much
BUCKETS = 24  # the last one has no end
BOUNDS_SECONDS = tuple(BUCKET_NS * 2**place / 1e9 for place in range(BUCKETS - 1))  # 20 µs to 84 s


def bucket_of(nanoseconds: int) -> int:
    """Return the place of the bucket for a duration."""
    return min((nanoseconds // BUCKET_NS).bit_length(), BUCKETS - 1)


# -- the cells of a method: two histograms, and the outcomes of calls that have failed

OK = 0  # the histogram of calls that have succeeded: its buckets are the only count of them
FAILED = OK + 1 + BUCKETS  # that of calls that have run and failed
FIRST_OUTCOME = FAILED + 1 + BUCKETS


class Outcome(enum.IntEnum):
    """How a call that has not succeeded has ended; the value is its cell in the method's block."""

    ERROR = FIRST_OUTCOME  # it has raised, or was no call of a method that there is
    TIMEOUT = FIRST_OUTCOME + 1  # of ``call_timeout``, of the method, or of the caller
    CANCELLED = FIRST_OUTCOME + 2  # by its caller, or because that has gone
    LOST = FIRST_OUTCOME + 3  # its worker or its lead has ended before it, so that nobody knows how it ended
    REFUSED = FIRST_OUTCOME + 4  # by a rule, a rate, or for want of the lead, before it began


class OwnCell(enum.IntEnum):
    """The cells of the own block."""

    BLOCKS = 0  # of this row in use
    CONNECTIONS = 1  # open now, while the process lives
    STALLS = 2  # times that a loop was held up
    HANDOVERS = 3  # the histogram of moves of connections that have come here: 25 cells
    QUEUE = HANDOVERS + 1 + BUCKETS  # the histogram of the time that calls have waited for their turn: 25 cells
