"""Reads the ledger of a dead worker, and rebuilds what its connections need to go on. Pure; runs in the master.

The worker may have written anything, so no number in the file is believed: each place is bounded by the file, each
length by the kernel's counters, and all lengths together by the file, too. A record that makes no sense costs its own
connection. Bytes are cut, and never decoded.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from rpccluster.ledger.layout import (
    BEGUN,
    CHECK,
    HEADER,
    INPUT_SHIFT,
    LOW_PEEK_OFFSET,
    MASK,
    RECORD,
    SENDING,
    SENDING_AT,
    UNIX_COUNT,
    BegunKind,
    Flag,
    Shape,
)

__all__ = ["Begun", "Counted", "Ledger", "Read", "Rebuilt", "Record"]

#: Returns so many bytes of the file from a place on; fewer if it is shorter.
Read = Callable[[int, int], bytes]


class Begun(NamedTuple):
    """A call that had begun; see `rpccluster.ledger.layout.BEGUN`."""

    input_end: int
    reply_end: int
    msgid: int
    kind: int


@dataclass
class Record:
    """What the ledger says of one connection, in the record ``place``; see `rpccluster.ledger.layout.RECORD`."""

    place: int
    border: int
    input_zero: int
    output_end: int
    output_zero: int
    flags: int
    closing_msgid: int
    begun: list[Begun] = field(default_factory=list)


class Counted(NamedTuple):
    """How many bytes of the streams of a connection the kernel has given to the dead worker, and taken from it.

    The next owner goes on counting, or ``begins_anew``.
    """

    read: int
    written: int
    begins_anew: bool = False


class Rebuilt(NamedTuple):
    """What a connection needs to go on.

    ``input`` are the messages that have not begun, ``output`` the rest of a reply that the kernel has taken in part,
    and complete ones behind it. The calls with the msgids in ``lost`` had begun, and so many ``notifications``.
    ``closing_msgid`` is that of an unanswered ``rpc.closing``, if there is one. The input begins at the offset
    ``border`` of the stream.
    """

    input: bytes
    output: bytes
    lost: list[int]
    notifications: int
    closing_msgid: int | None
    border: int


class Ledger:
    """All records of one ledger, by the numbers of their connections."""

    def __init__(self, read: Read, shape: Shape) -> None:
        self._read = read
        self._shape = shape
        self._budget = shape.size  # bytes that may yet be rebuilt: a liar's records may overlap
        header = read(0, HEADER.size)
        begun, current, records = HEADER.unpack(header) if len(header) == HEADER.size else (0, 0, 0)
        self.current: int = current  # the number of the connection whose input was worked through
        self._records = _records(read, shape, min(records, shape.records))
        self._take_begun(read, shape, min(begun, shape.begun))

    def _take_begun(self, read: Read, shape: Shape, used: int) -> None:
        data = read(shape.begun_at, used * BEGUN.size)
        for number, *rest in BEGUN.iter_unpack(data[: len(data) - len(data) % BEGUN.size]):
            record = self._records.get(number)
            if record is not None:
                record.begun.append(Begun(*rest))

    @property
    def is_at_call(self) -> bool:
        """Whether a call has begun, and was not answered, of the connection whose input was worked through."""
        record = self._records.get(self.current)
        return record is not None and bool(_unanswered(record))

    def __contains__(self, number: int) -> bool:
        return number in self._records

    def counted(self, number: int, peek_offset: int) -> Counted | None:
        """Return what was read and written of the Unix socket ``number``, which has this peek offset now."""
        record = self._records.get(number)
        if record is None:
            return None
        count = self._read(self._shape.unix_counts_at + record.place * UNIX_COUNT.size, UNIX_COUNT.size)
        sending = self._read(SENDING_AT, SENDING.size)
        if len(count) < UNIX_COUNT.size or len(sending) < SENDING.size:
            return None
        sum_, low_sum, written = UNIX_COUNT.unpack(count)
        taken, sent_by, before = SENDING.unpack(sending)
        read = (sum_ if peek_offset >= LOW_PEEK_OFFSET else low_sum) - peek_offset
        return Counted(read, before + taken if sent_by == number else written, True)

    def rebuild(self, number: int, counted: Counted) -> Rebuilt | None:
        """Return what the connection ``number`` needs; None if the ledger cannot tell that."""
        record = self._records.get(number)
        if record is None or record.flags & (Flag.BARE_INPUT | Flag.BARE_OUTPUT):
            return None
        begun = _unanswered(record)
        if any(each.kind not in (BegunKind.REQUEST, BegunKind.NOTIFICATION) for each in begun):
            return None
        border = max([record.border, *(each.input_end for each in record.begun)])
        input = self._cut(border, counted.read + INPUT_SHIFT, record.input_zero)
        output = self._cut(counted.written, record.output_end, record.output_zero)
        if input is None or output is None:
            return None
        lost = [each.msgid for each in begun if each.kind == BegunKind.REQUEST]
        closing_msgid = record.closing_msgid & 0xFFFF_FFFF if record.flags & Flag.CLOSING else None
        return Rebuilt(input, output, lost, len(begun) - len(lost), closing_msgid, border - INPUT_SHIFT)

    def _cut(self, start: int, end: int, zero: int) -> bytes | None:
        """Return the bytes of a stream from ``start`` to ``end``; None if they cannot stand in the file."""
        length = end - start
        if not length:
            return b""
        place = (zero + start) & MASK
        if not 0 < length <= self._budget or place < self._shape.window_at or place + length > self._shape.size:
            return None
        self._budget -= length
        data = self._read(place, length)
        return data if len(data) == length else None


def _unanswered(record: Record) -> list[Begun]:
    return [each for each in record.begun if not 0 < each.reply_end <= record.output_end]


def _records(read: Read, shape: Shape, used: int) -> dict[int, Record]:
    """Return the records that are in use: a ledger has room for far more, and callers wait meanwhile."""
    found: dict[int, Record] = {}
    data = read(shape.records_at, used * RECORD.size)
    words = array("Q", data[: len(data) - len(data) % RECORD.size])
    for at, number in enumerate(words[:: RECORD.size // words.itemsize]):
        if number:
            _, check, *rest = RECORD.unpack_from(data, at * RECORD.size)
            if check == number ^ CHECK:
                found[number] = Record(at, *rest)
    return found
