"""The journal of the dispatcher: which task it has sent to which process, in memory that outlives it.

The master owns the memory, so a dispatcher that is killed leaves the journal to its successor. Only that knows then
what was sent; the cells and the socket of the process tell the rest (`rpccluster.services.dispatcher.recovery`). An
entry stands from before a task is sent until its submitter has its outcome, or until it was taken back in its first
attempt: one that waits again in a later attempt is with no process, and only its attempt counts. An entry is in force
while its id is not 0, which is written last. Beside the entries each process has a mark, set while bytes of a message
are under way: if that still stands when the dispatcher has ended, nobody knows where the next message begins. The first
word is the number of the format: a journal of another build is not read.

Runs in the dispatcher, the only writer.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from rpccluster.ipc.scoreboard import MOST_ROWS

__all__ = ["READING", "WRITING", "Entry", "Journal"]

#: What may be under way: a message from a process, or one to it.
READING, WRITING = 1, 2

_FORMAT = struct.Struct("=Q")
_FORMAT_NUMBER = 0x7270_636A_0000_0001  # no mark, with which journals began before they had a format
_MARK = struct.Struct("=Q")
_ENTRY = struct.Struct("=QQQQQ")  # number, serial of the process, attempt, key, id of the task
_ID = struct.Struct("=Q")
_ID_OFFSET = _ENTRY.size - _ID.size
_MARKS_OFFSET = _FORMAT.size
_ENTRIES_OFFSET = _MARKS_OFFSET + MOST_ROWS * _MARK.size
_GROWTH = 4096  # entries at a time
_NO_PROCESS = 0  # a serial; those of processes count from 1


class Entry(NamedTuple):
    """One task that was sent: to the process ``serial``, as ``number``. ``key`` is that of `Key`, 0 for none."""

    number: int
    serial: int
    attempt: int
    task_id: int
    key: int = 0


class Journal:
    """The journal in one file in memory."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is the file's, which an earlier dispatcher may have written. Raises OSError."""
        self._descriptor = descriptor
        format_found = os.pread(descriptor, _FORMAT.size, 0)
        self.is_of_another_format = format_found not in (b"", _FORMAT.pack(_FORMAT_NUMBER))
        if self.is_of_another_format:
            os.ftruncate(descriptor, 0)
        self._room = max(0, (os.fstat(descriptor).st_size - _ENTRIES_OFFSET) // _ENTRY.size)
        if not self._room:
            self._room = _GROWTH
            os.ftruncate(descriptor, self._size())
        self._memory = mmap.mmap(descriptor, self._size())
        _FORMAT.pack_into(self._memory, 0, _FORMAT_NUMBER)
        self._places: dict[int, int] = {}  # by the task's id
        self._free: list[int] = []
        self._next = 0  # all places from here on were never used
        self._read()

    def _size(self) -> int:
        return _ENTRIES_OFFSET + self._room * _ENTRY.size

    def _read(self) -> None:
        for place in range(self._room):
            entry = self._at(place)
            if entry.task_id:
                self._places[entry.task_id] = place
        self._next = max(self._places.values(), default=-1) + 1
        self._free = sorted(set(range(self._next)) - set(self._places.values()), reverse=True)

    @staticmethod
    def _offset(place: int) -> int:
        return _ENTRIES_OFFSET + place * _ENTRY.size

    def __len__(self) -> int:
        return len(self._places)

    def entries(self) -> Iterator[Entry]:
        """Yield the entry of every task that is with a process, or was."""
        return (entry for entry in self._in_force() if entry.serial != _NO_PROCESS)

    def attempts(self) -> Iterator[tuple[int, int]]:
        """Yield the id of every task that waits again, and its attempt."""
        return ((entry.task_id, entry.attempt) for entry in self._in_force() if entry.serial == _NO_PROCESS)

    def _in_force(self) -> Iterator[Entry]:
        for place in list(self._places.values()):
            yield self._at(place)

    def _at(self, place: int) -> Entry:
        number, serial, attempt, key, task_id = _ENTRY.unpack_from(self._memory, self._offset(place))
        return Entry(number, serial, attempt, task_id, key)

    def enter(self, entry: Entry) -> None:
        """Note that a task is about to be sent; an earlier entry of it is replaced. Raises OSError without room."""
        place = self._places.get(entry.task_id)
        if place is None:
            place = self._take_place()
            self._places[entry.task_id] = place
        offset = self._offset(place)
        _ENTRY.pack_into(self._memory, offset, *entry[:3], entry.key, 0)
        _ID.pack_into(self._memory, offset + _ID_OFFSET, entry.task_id)

    def _take_place(self) -> int:
        if self._free:
            return self._free.pop()
        if self._next == self._room:
            self._grow()
        self._next += 1
        return self._next - 1

    def _grow(self) -> None:
        os.ftruncate(self._descriptor, self._size() + _GROWTH * _ENTRY.size)
        self._room += _GROWTH
        self._memory.close()
        self._memory = mmap.mmap(self._descriptor, self._size())

    def take_back(self, task_id: int, attempt: int) -> None:
        """Note that a task is with no process any more, and waits; in its first attempt it is as if never sent."""
        if attempt > 1:
            self.enter(Entry(0, _NO_PROCESS, attempt, task_id))
        else:
            self.clear(task_id)

    def clear(self, task_id: int) -> None:
        """Forget a task: nobody wants to know of it any more, or it is as if it had never been sent."""
        place = self._places.pop(task_id, None)
        if place is not None:
            _ID.pack_into(self._memory, self._offset(place) + _ID_OFFSET, 0)
            self._free.append(place)

    # -- what is under way

    def mark(self, row: int, serial: int, under_way: int) -> None:
        """Note what is under way between here and the process ``serial``, whose row of the scoreboard is ``row``."""
        _MARK.pack_into(self._memory, _MARKS_OFFSET + row * _MARK.size, serial << 2 | under_way)

    def is_cut(self, row: int, serial: int) -> bool:
        """Return whether a message was under way to or from that process when the last dispatcher ended."""
        (mark,) = _MARK.unpack_from(self._memory, _MARKS_OFFSET + row * _MARK.size)
        return bool(mark >> 2 == serial and mark & (READING | WRITING))
