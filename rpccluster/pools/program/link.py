"""A task process at the other end of its socket, and the tickets of what it was sent ahead. Runs in the program.

Never blocks: what its socket cannot take waits here. Owns its three descriptors.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from typing import Any

from rpccluster.pools.core import Process, Task
from rpccluster.system import MSG_NOSIGNAL
from rpccluster.tasks.wire import SEND_BUFFER_BYTES, Inbound, Run, pack_run, pack_ticket, tickets_in

__all__ = ["RECEIVE_BYTES", "Link"]

RECEIVE_BYTES = 262_144
_TICKETS_BYTES = 4096
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
        self._unsent: deque[memoryview] = deque()
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
        packed = [_packed(task) for task in tasks]
        self._send(packed[0] if len(packed) == 1 else b"".join(packed))

    def _send(self, data: bytes) -> None:
        if not self._unsent:
            sent = self._send_now(data)
            if sent == len(data):
                return
            self._unsent.append(memoryview(data)[sent:])
        else:
            self._unsent.append(memoryview(data))

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self._unsent:
            first = self._unsent[0]
            sent = self._send_now(first)
            if sent < len(first):
                self._unsent[0] = first[sent:]
                return
            self._unsent.popleft()

    def _send_now(self, data: Any) -> int:
        """Return how much of ``data`` is out. What an ended process does not take counts as sent."""
        try:
            return self._socket.send(data, _SEND_FLAGS)
        except BlockingIOError:
            return 0
        except OSError:  # it has ended; its end is told by others
            return len(data)

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


def _packed(task: Task) -> bytes:
    work = task.work
    fields = (task.number, task.id, task.attempt, work.target, work.form, work.payload)
    return pack_run(Run(*fields, work.timeout, work.soft_timeout, task.ticket))
