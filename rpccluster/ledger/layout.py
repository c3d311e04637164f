"""The layout of a ledger: a file in memory in which a worker notes what its master needs to revive its connections.

Pure; the master makes the file and reads it, the compiled engine of the worker writes it (`worker/hot/compiled`).

The file has five parts, whose sizes never change: a header, *records* (one for each connection), *begun calls*, a
*window* through which most bytes pass, and an *arena* of blocks for what has to stay. The two streams of a connection
are counted as the kernel counts them, and a record says where in the file a stream's offset 0 would lie: so one store
moves what is kept, and all of it, to another place. Offsets of input are raised by `INPUT_SHIFT`, since the input that
a worker has adopted may be longer than what was read of the stream.
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
    "MASK",
    "OUTPUT_WINDOW",
    "RECORD",
    "BegunKind",
    "Flag",
    "Shape",
]

INPUT_SHIFT = 1 << 48
CHECK = 0x6C65_6467_6572_3031  # a record's second word is its first one with these bits turned
MASK = (1 << 64) - 1  # all numbers are words of 64 bits, in the machine's order, and wrap

HEADER_BYTES = 4096
#: How many begun calls there have ever been at once, and the number of the connection whose input is worked through.
HEADER = struct.Struct("=QQ")

#: A record: the number of the connection, a check, up to which offset of the input messages have begun, where offset 0
#: of the input lies, at which offset the complete output ends, where offset 0 of that lies, `Flag`s, and the msgid
#: of an unanswered ``rpc.closing``.
RECORD = struct.Struct("=QQQQQQQQ")

#: A call that has begun: the number of its connection (0: nothing stands here), the offset of the input at which it
#: ends, the offset of the output at which its reply ends (0: it has none yet), its msgid, and its `BegunKind`.
BEGUN = struct.Struct("=QQQII")

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
    def window_at(self) -> int:
        """Where the window begins, at the border of a page."""
        return -(-(self.begun_at + self.begun * BEGUN.size) // 4096) * 4096

    @property
    def arena_at(self) -> int:
        """Where the arena begins."""
        return self.window_at + INPUT_WINDOW + OUTPUT_WINDOW

    @property
    def size(self) -> int:
        """The bytes of the whole file."""
        return self.arena_at + self.arena_bytes
