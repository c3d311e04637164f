"""The layout of a ledger: a file in memory in which a worker notes what its master needs to revive its connections.

Pure; the master makes the file and reads it, the compiled engine of the worker writes it (`worker/hot/compiled`).

The file has six parts, whose sizes never change: a header, *records* (one for each connection), *begun calls*, *Unix
counts* (one for each record), a *window* through which most bytes pass, and an *arena* of blocks for what has to stay.
The two streams of a connection are counted as the kernel counts them, and a record says where in the file a stream's
offset 0 would lie: so one store moves what is kept, and all of it, to another place. Offsets of input are raised by
`INPUT_SHIFT`, since the input that a worker has adopted may be longer than what was read of the stream.

The streams of a Unix socket are counted from the moment at which the ledger has it. How much was read, its peek offset
tells, which the kernel lowers by each byte that is read, and which nothing else uses. How much was written, the kernel
writes into the file itself, by sendmmsg(2).
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

__all__ = [
    "BEGUN",
    "CHECK",
    "HEADER",
    "HEADER_BYTES",
    "INPUT_SHIFT",
    "INPUT_WINDOW",
    "LOW_PEEK_OFFSET",
    "MASK",
    "OUTPUT_WINDOW",
    "PEEK_OFFSET",
    "RECORD",
    "SENDING",
    "SENDING_AT",
    "UNIX_COUNT",
    "BegunKind",
    "Flag",
    "Shape",
]

INPUT_SHIFT = 1 << 48
CHECK = 0x6C65_6467_6572_3031  # a record's second word is its first one with these bits turned
MASK = (1 << 64) - 1  # all numbers are words of 64 bits, in the machine's order, and wrap

HEADER_BYTES = 4096
#: How many begun calls there have ever been at once, the number of the connection whose input is worked through, and
#: how many records there have ever been at once: no others need be read.
HEADER = struct.Struct("=QQQ")
#: What was sent last at a Unix socket: how much of it the kernel has taken (the last field of its `mmsghdr`, which
#: stands before), the number of the connection (0: it stands in its Unix count by now), and what was written before.
SENDING = struct.Struct("=I4xQQ")
SENDING_AT = 128

#: A record: the number of the connection, a check, up to which offset of the input messages have begun, where offset 0
#: of the input lies, at which offset the complete output ends, where offset 0 of that lies, `Flag`s, and the msgid
#: of an unanswered ``rpc.closing``.
RECORD = struct.Struct("=QQQQQQQQ")

#: A call that has begun: the number of its connection (0: nothing stands here), the offset of the input at which it
#: ends, the offset of the output at which its reply ends (0: it has none yet), its msgid, and its `BegunKind`.
BEGUN = struct.Struct("=QQQII")

#: The counts of a Unix socket: the sum of what was read and the peek offset, the same from the time at which that was
#: low (it holds while it is), and what was written.
UNIX_COUNT = struct.Struct("=QQQ8x")
PEEK_OFFSET = (1 << 31) - 1  # what it is set to, at first and when it has become low
LOW_PEEK_OFFSET = 1 << 30

INPUT_WINDOW = 1 << 18
OUTPUT_WINDOW = 1 << 18


class Flag(enum.IntFlag):
    """The state of a connection, in its record."""

    BARE_INPUT = 1  # its unparsed input does not stand in the ledger
    BARE_OUTPUT = 2  # its unsent output does not
    CLOSING = 4  # it awaits the answer to ``rpc.closing``


class BegunKind(enum.IntEnum):
    """What a begun call is."""

    REQUEST = 0
    NOTIFICATION = 1
    UNKNOWN = 2  # bytes that are no plain call, and that the slow path is at


class Shape(NamedTuple):
    """The sizes of one ledger: the master's own numbers, by which it bounds everything that it reads."""

    records: int
    begun: int
    arena_bytes: int  # a power of two

    @classmethod
    def fitting(cls, connections: int, calls: int, arena_bytes: int) -> Shape:
        """Return the shape for so many connections, begun calls, and at least so many kept bytes."""
        return cls(connections, calls, 1 << max(16, (arena_bytes - 1).bit_length()))

    @property
    def records_at(self) -> int:
        """Where the records begin."""
        return HEADER_BYTES

    @property
    def begun_at(self) -> int:
        """Where the begun calls begin."""
        return self.records_at + self.records * RECORD.size

    @property
    def unix_counts_at(self) -> int:
        """Where the Unix counts begin."""
        return self.begun_at + self.begun * BEGUN.size

    @property
    def window_at(self) -> int:
        """Where the window begins, at the border of a page."""
        return -(-(self.unix_counts_at + self.records * UNIX_COUNT.size) // 4096) * 4096

    @property
    def arena_at(self) -> int:
        """Where the arena begins."""
        return self.window_at + INPUT_WINDOW + OUTPUT_WINDOW

    @property
    def size(self) -> int:
        """The bytes of the whole file."""
        return self.arena_at + self.arena_bytes
