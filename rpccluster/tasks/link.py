"""A task process's end of its socket: which task comes next, what is told of the running one. Runs in the task process.

A forked child of a task has no part in it: it closes all of this, and ends when it returns from the task's function.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from rpccluster import system
from rpccluster.tasks.wire import (
    LARGE_BYTES,
    SEND_BUFFER_BYTES,
    TICKET_BYTES,
    Done,
    Inbound,
    Progress,
    Run,
    pack_done,
    pack_large,
    pack_progress,
    tickets_in,
    unsent,
)

__all__ = ["Link"]

_RECEIVE_BYTES = 262_144
_PROGRESS_SECONDS = 0.02  # between two messages about a task's progress


class Link:
    """The socket to the dispatcher, and the tickets of what it has sent ahead."""

    def __init__(self, sock: socket.socket, tickets: int) -> None:
        """``tickets`` is the read end of the pipe, which does not block; the socket blocks."""
        self._socket = sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._tickets = tickets
        self._ticket = 0  # that was read, and is of a later task
        self._run: Run | None = None
        self._lock = threading.Lock()  # threads of a task may tell its progress
        self._progress: bytes = b""  # that is held back
        self._told_at = 0.0
        self._is_forked = False
        self._leave_to_parent: list[Callable[[], object]] = [sock.close, lambda: os.close(tickets)]
        os.register_at_fork(after_in_child=self._note_fork)

    def leave_to_parent(self, close: Callable[[], object]) -> None:
        """Call ``close``, too, in a process that the task forks."""
        self._leave_to_parent.append(close)

    # -- what comes

    def tasks(self) -> Iterator[Run]:
        """Yield each task that is this process's to run, until the other end is closed. Raises OSError."""
        inbound, space = Inbound(), bytearray(_RECEIVE_BYTES)
        view = memoryview(space)
        while True:
            count = self._socket.recv_into(space)
            if not count:
                return
            for run in inbound.feed(view[:count]):
                if not run.ticket or self._is_ours(run.ticket):
                    yield run

    def _is_ours(self, ticket: int) -> bool:
        """Return whether the task with ``ticket`` has not been taken back."""
        while self._ticket < ticket:
            try:
                self._ticket = tickets_in(os.read(self._tickets, TICKET_BYTES))[0]
            except BlockingIOError:
                return False
        return self._ticket == ticket

    # -- what is told

    def begin(self, run: Run) -> None:
        """Note that ``run`` is what the process works on from now on."""
        self._run = run
        self._progress = b""

    def tell_progress(self, done: Any, total: Any, note: Any) -> None:
        """Tell how far the running task is, or hold that back until the next time, at the latest until its end."""
        run = self._run
        if run is None or self._is_forked:
            return
        packed = pack_progress(Progress(run.number, run.task_id, done, total, note))
        with self._lock:
            if run is not self._run:
                return
            now = time.monotonic()
            self._progress = packed
            if now - self._told_at >= _PROGRESS_SECONDS:
                self._told_at = now
                self._send(b"")

    def tell_done(self, done: Done) -> None:
        """Tell how the running task has ended. Raises OSError."""
        with self._lock:
            self._run = None
            if len(done.payload) < LARGE_BYTES:
                self._send(pack_done(done))
            else:
                self._send_pieces(pack_large(done))

    def _send(self, data: bytes) -> None:
        data, self._progress = self._progress + data if self._progress else data, b""
        self._socket.sendall(data, system.MSG_NOSIGNAL)

    def _send_pieces(self, pieces: list[Any]) -> None:
        if self._progress:
            self._send(b"")
        while pieces:
            pieces = unsent(pieces, self._socket.sendmsg(pieces, (), system.MSG_NOSIGNAL))

    # -- forks of the task

    def _note_fork(self) -> None:
        self._is_forked = True
        for close in self._leave_to_parent:
            with contextlib.suppress(OSError):
                close()

    def end_forked(self, error: BaseException | None = None) -> None:
        """End this process if the task has forked it: it has returned from the task, or left it by ``error``."""
        if self._is_forked:
            self._end(error)

    @staticmethod
    def _end(error: BaseException | None) -> NoReturn:
        status = 0
        if isinstance(error, SystemExit):
            status = error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            status = 1
            with contextlib.suppress(Exception):
                traceback.print_exception(type(error), error, error.__traceback__)
        os._exit(status)
