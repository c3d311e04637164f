"""The messages between a task process and the dispatcher at the other end of its socket, and their bytes. Pure.

Both are MessagePack arrays on a stream; a payload is opaque bytes, which only the ends of a task read: the one that
submits it and the process that runs it. A dispatcher may send tasks ahead, behind the one that runs, and take them back
as long as they have not begun. That is decided by a pipe, the *tickets* of one process, so that it has no race:

- Before a dispatcher sends a task ahead it writes the task's ticket, a number that grows, into the pipe.
- The process begins a task only if it reads its ticket from the pipe. It reads past lower ones, whose tasks were
  dropped. If it finds a higher one or none, the task was taken back, and it drops it in silence.
- The dispatcher takes all back by reading the pipe empty itself: what it finds there is its own again.

A task with the ticket 0 needs none: a dispatcher sends it to a process that has nothing to do.

A process that ends with tasks unread makes the next receive here raise ECONNRESET once, before what it had still told:
read on to the end of the stream.

Before a task begins, the process writes its number into the cell ``RUNNING``, and clears it only after its `Done` was
sent. So if a process is killed, its cell and its socket tell together what was begun and what has ended.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgpack

__all__ = [
    "FORMS",
    "LARGE_BYTES",
    "MSGPACK",
    "OK",
    "OUT_OF_MEMORY",
    "PICKLE",
    "RAISED",
    "REJECTED",
    "RPC",
    "SEND_BUFFER_BYTES",
    "TICKET_BYTES",
    "Done",
    "Failure",
    "Inbound",
    "Progress",
    "Run",
    "pack_done",
    "pack_failure",
    "pack_large",
    "pack_progress",
    "pack_run",
    "pack_ticket",
    "tickets_in",
    "unpack_failure",
    "unsent",
]

#: The forms of a task. ``pickle``: target ``module:function``, payload the pickled ``(args, kwargs)``, result pickled.
#: ``msgpack``: the same target, called with the one value that is packed. ``rpc``: the target is a method of the
#: service, payload its packed params. The results of the latter two are packed values.
PICKLE, MSGPACK, RPC = "pickle", "msgpack", "rpc"
FORMS = (PICKLE, MSGPACK, RPC)

#: The outcomes that a process tells. A failure's payload is a `Failure`.
OK, RAISED, REJECTED, OUT_OF_MEMORY = "ok", "raised", "rejected", "out_of_memory"

_MOST_BYTES = (1 << 32) - 1  # that a bin of MessagePack can have
#: A payload of so many bytes is sent as it is (`pack_large`), since two copies of it cost more than a longer way.
LARGE_BYTES = 32_768
#: The heads of an array of up to 15 items, and of a bin, in MessagePack's format.
_FIXARRAY, _BIN_32, _BIN = 0x90, 0xC6, struct.Struct(">BI")
_TICKET = struct.Struct("=Q")
TICKET_BYTES = _TICKET.size

#: Both ends of a socket ask for this much room, so that few large values wait for room; the kernel gives what it may.
SEND_BUFFER_BYTES = 4 << 20


class Run(NamedTuple):
    """Dispatcher to process: run this. ``number`` is another for each task sent; ``timeout`` 0 means no limit."""

    number: int
    task_id: int
    attempt: int
    target: str
    form: str
    payload: bytes
    timeout: float = 0.0
    soft_timeout: float = 0.0
    ticket: int = 0


class Done(NamedTuple):
    """Process to dispatcher: the task has ended so. Times are seconds of the epoch."""

    number: int
    task_id: int
    attempt: int
    outcome: str
    payload: bytes
    started_at: float = 0.0
    ended_at: float = 0.0


class Progress(NamedTuple):
    """Process to dispatcher: the running task says how far it is, in whatever units; any may be None."""

    number: int
    task_id: int
    done: Any = None
    total: Any = None
    note: Any = None


class Failure(NamedTuple):
    """Why a task failed: the name of the exception's class, its text, and its traceback."""

    type: str
    message: str
    traceback: str = ""


_DONE, _PROGRESS, _RUN = range(3)
_TYPES: dict[int, Any] = {_DONE: Done, _PROGRESS: Progress, _RUN: Run}
_ENDS = {number: 1 + len(type_._fields) for number, type_ in _TYPES.items()}  # of the fields that a message has here


def _packer() -> Callable[[Any], bytes]:
    """Return what packs plain values: one packer for all, a third of the time, where it cannot be interrupted."""
    options = {"unicode_errors": "surrogateescape"}
    if msgpack.Packer.__module__ == "msgpack._cmsgpack":
        return msgpack.Packer(**options).pack
    return partial(msgpack.packb, **options)


_pack = _packer()


def pack_run(run: Run) -> bytes:
    """Return the bytes of ``run``."""
    return _pack((_RUN, *run))


def pack_done(done: Done) -> bytes:
    """Return the bytes of ``done``."""
    return _pack((_DONE, *done))


def pack_large(message: Run | Done) -> list[bytes]:
    """Return the bytes of ``message`` in pieces, of which one is its payload: a large one is not copied."""
    number = _RUN if isinstance(message, Run) else _DONE
    fields = (number, *message)
    place = 1 + message._fields.index("payload")
    head = b"".join([_array_of(len(fields)), *(_pack(field) for field in fields[:place])])
    tail = b"".join([_pack(field) for field in fields[place + 1 :]])
    return [head + _BIN.pack(_BIN_32, len(message.payload)), message.payload, tail]


def unsent(pieces: list[Any], sent: int) -> list[Any]:
    """Return what is left of ``pieces`` after ``sent`` bytes of them are out."""
    for place, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[place + 1 :]]
        sent -= len(piece)
    return []


def _array_of(length: int) -> bytes:
    return bytes((_FIXARRAY + length,))


def pack_progress(progress: Progress) -> bytes:
    """Return the bytes of ``progress``. Raises TypeError, ValueError or OverflowError if a value cannot be packed."""
    packed: bytes = msgpack.packb((_PROGRESS, *progress), unicode_errors="surrogateescape")
    return packed


def pack_failure(failure: Failure) -> bytes:
    """Return the payload of a failed task."""
    packed: bytes = msgpack.packb(tuple(failure), unicode_errors="surrogatepass")
    return packed


def unpack_failure(payload: bytes) -> Failure:
    """Return what a failed task's payload says."""
    return Failure(*msgpack.unpackb(payload, unicode_errors="surrogatepass")[: len(Failure._fields)])


def pack_ticket(ticket: int) -> bytes:
    """Return the bytes of a ticket, for the pipe."""
    return _TICKET.pack(ticket)


def tickets_in(data: bytes) -> list[int]:
    """Return the tickets in what was read from the pipe, which has whole ones only."""
    return [ticket for (ticket,) in _TICKET.iter_unpack(data)]


class Inbound:
    """Makes messages of the bytes that come from a socket: `Run` in the process, `Done` and `Progress` beyond it."""

    def __init__(self) -> None:
        self._fed = 0  # bytes
        self._unpacker = msgpack.Unpacker(
            max_buffer_size=_MOST_BYTES, strict_map_key=False, unicode_errors="surrogateescape"
        )

    def feed(self, data: Any) -> list[Any]:
        """Return each message that ``data`` completes. Raises ValueError or TypeError if these are none."""
        self._fed += len(data)
        self._unpacker.feed(data)
        messages = []
        for fields in self._unpacker:
            end = _ENDS.get(fields[0])
            if end is None:  # of a later version
                continue
            type_ = _TYPES[fields[0]]
            if len(fields) >= end:
                messages.append(tuple.__new__(type_, fields[1:end]))  # the constructor takes as long as the rest
            else:
                messages.append(type_(*fields[1:]))
        return messages

    @property
    def has_partial(self) -> bool:
        """Whether a message has begun to come, and is not complete."""
        return self._fed > int(self._unpacker.tell())
