"""The ledger of a made-up worker: it writes the real layout, one word after another, and may die between any two.

It is an honest twin of the compiled engine's: what it notes, and in which order, is the same; only memory is no matter
here, so each connection has four areas of its own: what is kept of a stream is copied from one to the other.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Callable

from rpccluster.ledger.layout import (
    BEGUN,
    CHECK,
    INPUT_SHIFT,
    LOW_PEEK_OFFSET,
    MASK,
    PEEK_OFFSET,
    RECORD,
    SENDING_AT,
    UNIX_COUNT,
    BegunKind,
    Flag,
    Shape,
)
from rpccluster.system import MSG_NOSIGNAL

from ..wire import CALL, REPLY

__all__ = ["Ledger", "Note"]

AREA = 4096
_PEEK_OFF = 42  # SO_PEEK_OFF of asm-generic/socket.h
_WORD, _TAKEN, _TWO = struct.Struct("=Q"), struct.Struct("=I"), struct.Struct("=II")


class Ledger:
    """The ledger of one worker. ``act`` is called before each word is written, and may raise `Died`."""

    def __init__(self, descriptor: int, shape: Shape, act: Callable[[], None], *, is_soon_low: bool) -> None:
        """``descriptor`` is the master's. If it ``is_soon_low``, the peek offset of a socket is set anew soon."""
        self.shape = shape
        self._file = os.dup(descriptor)
        self._act = act
        self.peek_offset = LOW_PEEK_OFFSET + 6 if is_soon_low else PEEK_OFFSET
        self._records, self._begun = _Places(), _Places()
        self.current = 0

    def write(self, place: int, data: bytes) -> None:
        """Write what nobody reads yet."""
        os.pwrite(self._file, data, place)

    def read(self, place: int, length: int) -> bytes:
        """Return what was written."""
        return os.pread(self._file, length, place)

    def store(self, place: int, value: int) -> None:
        """Write one word, which makes something true."""
        self._act()
        self.write(place, _WORD.pack(value & MASK))

    def work_at(self, number: int) -> None:
        """Note whose input is worked through; 0: nobody's."""
        self.store(8, number)
        self.current = number

    def new_record(self) -> int | None:
        """Return the place of a free record; None if there is none."""
        place = self._records.take(self.shape.records)
        if place is not None:
            self.store(16, self._records.used)
        return place

    def new_begun(self) -> int:
        """Return the place in the file of a free entry for a begun call."""
        place = self._begun.take(self.shape.begun)
        assert place is not None, "there are never so many calls"
        self.store(0, self._begun.used)
        return self.shape.begun_at + place * BEGUN.size

    def free_record(self, place: int) -> None:
        self._records.free.append(place)

    def free_begun(self, at: int) -> None:
        self._begun.free.append((at - self.shape.begun_at) // BEGUN.size)

    def forget_begun_of(self, number: int) -> None:
        """Forget calls of a connection that was here before."""
        for place in range(self._begun.used):
            at = self.shape.begun_at + place * BEGUN.size
            if _WORD.unpack(self.read(at, 8))[0] == number:
                self.store(at, 0)

    def close(self) -> None:
        """Close the file, as the kernel does at the worker's end."""
        os.close(self._file)


class _Places:
    """Numbered places: those that are free, and how many were ever used at once."""

    def __init__(self) -> None:
        self.free: list[int] = []
        self.used = 0

    def take(self, most: int) -> int | None:
        if self.free:
            return self.free.pop()
        if self.used >= most:
            return None
        self.used += 1
        return self.used - 1


class Note:
    """What a ledger has of one connection, with the ``number``. Offsets of streams are counted as its layout says."""

    def __init__(self, ledger: Ledger, number: int, place: int, sock: socket.socket) -> None:
        self.ledger = ledger
        self.number = number
        self._place = place
        self._socket = sock
        shape = ledger.shape
        self._record_at = shape.records_at + place * RECORD.size
        self._count_at = shape.unix_counts_at + place * UNIX_COUNT.size
        self._areas_at = shape.arena_at + place * 4 * AREA
        self.received = self.border = INPUT_SHIFT
        self._input_at = self._output_at = self._areas_at  # where the one begins that has not begun, and is not sent
        self._sent = self._published = 0
        self._low_at = MASK
        self._entries: dict[int, int] = {}  # by msgid: where its entry stands
        self.is_valid = False
        self.flags = Flag(0)
        self.published: dict[int, int] = {}  # calls whose replies stand in the ledger, and how they are answered

    # -- its birth and its end

    def prepare(self, input: bytes, output: bytes, awaited: list[int]) -> None:
        """Write all that must stand before `begin`; ``awaited`` are calls that run elsewhere."""
        ledger = self.ledger
        self.border = self.received - len(input)
        words = self.border, 0, 0, 0, 0, 0
        ledger.write(self._record_at + 8, struct.pack("=7Q", self.number ^ CHECK, *words))
        ledger.forget_begun_of(self.number)
        ledger.write(self._count_at + 16, _WORD.pack(0))
        ledger.store(SENDING_AT + 8, 0)
        self._set_peek_offset()
        self._put_input(input)
        for msgid in awaited:
            self._enter(0, msgid, BegunKind.REQUEST)
        if output:
            self._publish(output)

    def begin(self) -> None:
        """Let all that happens from now on stand in the ledger."""
        self.ledger.store(self._record_at, self.number)
        self.is_valid = True

    def end(self) -> None:
        """Forget the connection."""
        ledger = self.ledger
        self.is_valid = False
        ledger.store(self._record_at, 0)
        ledger.free_record(self._place)
        for at in self._entries.values():
            ledger.store(at, 0)
            ledger.free_begun(at)

    def put_flags(self, flags: Flag) -> None:
        """Note what state the connection is in."""
        self.ledger.store(self._record_at + 48, flags)
        self.flags = flags

    def _set_peek_offset(self) -> None:
        ledger = self.ledger
        sum_ = self.received - INPUT_SHIFT + ledger.peek_offset
        ledger.store(self._count_at, sum_)
        self._socket.setsockopt(socket.SOL_SOCKET, _PEEK_OFF, ledger.peek_offset)
        ledger.store(self._count_at + 8, sum_)
        self._low_at = self.received + ledger.peek_offset - LOW_PEEK_OFFSET + 1

    # -- input

    def receive(self) -> bytes:
        """Receive behind what has not begun. Raises OSError."""
        ledger = self.ledger
        kept = self.received - self.border
        self._put_input(ledger.read(self._input_at, kept) if kept else b"")
        data = self._socket.recv(AREA - kept)  # the kernel counts it, and it stands in the ledger: one system call
        ledger.write(self._input_at + kept, data)
        self.received += len(data)
        if self.received >= self._low_at:
            self._set_peek_offset()
        return data

    def _put_input(self, data: bytes) -> None:
        """Let what has not begun stand in the other area, and the next bytes of the stream behind it."""
        ledger, (one, other) = self.ledger, (self._areas_at, self._areas_at + AREA)
        at = other if self._input_at < other else one
        ledger.write(at, data)
        ledger.store(self._record_at + 24, at + len(data) - self.received)
        self._input_at = at

    # -- calls

    def begin_call(self, msgid: int, kind: BegunKind, then: Callable[[], object]) -> None:
        """Note a call that begins, of the message at the border. ``then`` is called when it has, for the world."""
        self._enter(self.border + CALL.size, msgid, kind, then)
        self.border += CALL.size
        self._input_at += CALL.size
        self.ledger.store(self._record_at + 16, self.border)

    def _enter(self, input_end: int, msgid: int, kind: BegunKind, then: Callable[[], object] = lambda: None) -> None:
        ledger = self.ledger
        at = ledger.new_begun()
        ledger.store(at, 0)
        ledger.write(at + 8, struct.pack("=QQ", input_end, 0) + _TWO.pack(msgid, kind))
        ledger.store(at, self.number)
        then()
        self._entries[msgid] = at

    def forget_call(self, msgid: int) -> None:
        """Forget a begun call that gets no reply."""
        at = self._entries.pop(msgid)
        self.ledger.store(at, 0)
        self.ledger.free_begun(at)

    @property
    def unanswered(self) -> set[int]:
        """The calls that have begun, here or elsewhere, and whose replies do not stand here."""
        return {msgid for msgid in self._entries if msgid not in self.published}

    @property
    def first_unbegun(self) -> int | None:
        """The first message that has not begun; None if there is none."""
        if self.received == self.border:
            return None
        (number,) = CALL.unpack(self.ledger.read(self._input_at, CALL.size))
        return int(number)

    # -- output

    def answer(self, msgid: int, reply: bytes) -> None:
        """Let a reply stand in the ledger; so the call is answered."""
        at = self._entries.get(msgid)
        if at is not None:
            self.ledger.store(at + 16, self._published + 1)
        self._publish(reply)
        _, self.published[msgid] = REPLY.unpack(reply)
        if at is not None:
            del self._entries[msgid]
            self.ledger.free_begun(at)  # another call may have it now: it says itself that this one is answered

    def _publish(self, data: bytes) -> None:
        ledger, (one, other) = self.ledger, (self._areas_at + 2 * AREA, self._areas_at + 3 * AREA)
        unsent = self._published - self._sent
        at = other if self._output_at < other else one
        kept = ledger.read(self._output_at, unsent) if unsent else b""
        assert len(kept) + len(data) <= AREA, "callers never leave so much unread"
        ledger.write(at, kept + data)
        ledger.store(self._record_at + 40, at - self._sent)
        self._output_at = at
        self._published += len(data)
        ledger.store(self._record_at + 32, self._published)

    def send(self, data: bytes) -> int:
        """Send as sendmmsg(2) does, by which the kernel writes into the ledger how much it takes. Raises OSError."""
        ledger = self.ledger
        ledger.store(SENDING_AT + 8, 0)
        ledger.write(SENDING_AT, _TAKEN.pack(0))
        ledger.write(SENDING_AT + 16, _WORD.pack(self._sent))
        ledger.store(SENDING_AT + 8, self.number)
        sent = self._socket.send(data, MSG_NOSIGNAL)
        ledger.write(SENDING_AT, _TAKEN.pack(sent))
        self._sent += sent
        self._output_at += sent
        ledger.store(self._count_at + 16, self._sent)
        return sent
