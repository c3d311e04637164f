"""A task process at the other end of its socket, and the tickets of what it was sent ahead. Runs in the program.

Never blocks: what its socket cannot take waits here. Owns its three descriptors.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from rpccluster.pools.core import Process, Task
from rpccluster.system import MSG_NOSIGNAL
from rpccluster.tasks.wire import (
    LARGE_BYTES,
    SEND_BUFFER_BYTES,
    Inbound,
    Run,
    pack_large,
    pack_run,
    pack_ticket,
    tickets_in,
    unsent,
)

__all__ = ["RECEIVE_BYTES", "Link"]

RECEIVE_BYTES = 262_144
_TICKETS_BYTES = 4096
_MOST_PIECES = 256  # of one send
_SEND_FLAGS = int(socket.MSG_DONTWAIT | MSG_NOSIGNAL)


class Link:
    """One task process. ``process`` is what the core knows of it."""

    def __init__(self, serial: int, pid: int, descriptors: list[int]) -> None:
        """``descriptors`` are the socket, and the ends of the tickets' pipe: for reading, for writing."""
        self.serial = serial
        self.pid = pid
        self.process = Process(self)
        self._socket = socket.socket(fileno=descriptors[0])
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._tickets = descriptors[1:]
        self._inbound = Inbound()
        self._unsent: list[Any] = []  # bytes, or views of them
        self.is_ended = False

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether something waits until the process has read: watch for writing."""
        return bool(self._unsent)

    def run(self, tasks: list[Task]) -> None:
        """Send tasks to the process, each with its ticket before it."""
        tickets = b"".join([pack_ticket(task.ticket) for task in tasks if task.ticket])
        if tickets:
            with contextlib.suppress(OSError):  # nobody reads there any more: nothing of it begins
                os.write(self._tickets[1], tickets)
        pieces: list[bytes] = []
        for task in tasks:
            run = _run(task)
            if len(run.payload) < LARGE_BYTES:
                pieces.append(pack_run(run))
            else:
                pieces += pack_large(run)
        self._unsent += _gathered(pieces)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room. What an ended process does not take counts as sent."""
        while self._unsent:
            try:
                sent = self._socket.sendmsg(self._unsent[:_MOST_PIECES], (), _SEND_FLAGS)
            except BlockingIOError:
                return
            except OSError:  # it has ended; its end is told by others
                self._unsent = []
                return
            self._unsent = unsent(self._unsent, sent)

    def take_back(self) -> list[int]:
        """Read the tickets back that the process has not taken."""
        found: list[int] = []
        with contextlib.suppress(OSError):
            while True:
                data = os.read(self._tickets[0], _TICKETS_BYTES)
                found += tickets_in(data)
                if len(data) < _TICKETS_BYTES:
                    break
        return found

    def receive(self, space: bytearray) -> list[Any]:
        """Return the messages that have come, by way of ``space``. ``is_ended`` says that no more will."""
        messages: list[Any] = []
        while not self.is_ended:
            try:
                count = self._socket.recv_into(space)
            except BlockingIOError:
                break
            except ConnectionResetError:  # it ended with unread tasks: what it told is still to be read
                continue
            except OSError:
                count = 0
            if not count:
                self.is_ended = True
                break
            messages += self._inbound.feed(memoryview(space)[:count])
            if count < len(space):
                break
        return messages

    def close(self) -> None:
        """Close the descriptors."""
        self._socket.close()
        for descriptor in self._tickets:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._tickets = []


def _run(task: Task) -> Run:
    work = task.work
    fields = (task.number, task.id, task.attempt, work.target, work.form, work.payload)
    return Run(*fields, work.timeout, work.soft_timeout, task.ticket)


def _gathered(pieces: list[bytes]) -> list[bytes]:
    """Join what is short, for one send; what is large stays as it is."""
    if len(pieces) == 1:
        return pieces
    gathered: list[bytes] = []
    short: list[bytes] = []
    for piece in pieces:
        if len(piece) < LARGE_BYTES:
            short.append(piece)
        else:
            gathered += [b"".join(short), piece]
            short = []
    return [*gathered, b"".join(short)] if short else gathered
