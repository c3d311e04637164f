"""Writes lines to a descriptor without ever waiting for its reader: the pipe may be full, the terminal stopped.

Lines that find no room wait in a bounded buffer of this process. Lines that do not fit there are dropped and counted;
the count becomes a line of its own as soon as there is room. Any process, any thread.

O_NONBLOCK belongs to the open file description, which this process shares with the one that gave it the descriptor. To
set it on an inherited stderr would change the terminal, or the pipe, for the user's shell and every other writer. So
`own_description` opens a description of its own of the same pipe or terminal. If it cannot (a socket, another user's
pipe), `write_now` makes each write so that it does not wait.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import sys
from _thread import allocate_lock
from collections import deque
from collections.abc import Iterator
from time import monotonic, sleep  # imported before gevent patches them: at its end a worker has no loop to wait with
from typing import Callable

from rpccluster.system import without_sigpipe

__all__ = ["MOST_BYTES", "Outlet", "own_description", "say", "write_now"]

MOST_BYTES = 256 << 10  # of waiting lines, in each process

_RWF_NOWAIT = 8  # uio.h
_CHUNK_BYTES = select.PIPE_BUF  # always has room once poll(2) says so


def own_description(descriptor: int) -> int:
    """Open a non-blocking descriptor of the pipe or terminal that ``descriptor`` leads to.

    Returns ``descriptor`` itself if that is not possible, or if it leads to a file, which keeps nobody waiting.
    """
    for path in _other_ways(descriptor):
        with contextlib.suppress(OSError):
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return descriptor


def _other_ways(descriptor: int) -> Iterator[str]:
    """Yield paths that lead to the same pipe or terminal."""
    with contextlib.suppress(OSError):
        is_terminal = os.isatty(descriptor)
        if is_terminal or stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            yield f"/proc/self/fd/{descriptor}"
        if is_terminal:
            os.tcgetpgrp(descriptor)  # raises unless it is this session's terminal: then any process may open it so,
            yield "/dev/tty"  # although it may belong to another user, after su(1)


def write_now(descriptor: int, data: bytes) -> int:
    """Call write(2) without waiting, whatever ``descriptor`` is. Raises BlockingIOError, or another OSError."""
    with without_sigpipe():
        return _write_now(descriptor, data)


def _write_now(descriptor: int, data: bytes) -> int:
    if not os.get_blocking(descriptor) or stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.write(descriptor, data)
    # Pipes and sockets know this flag of pwritev2(2) since Linux 6.4; PyPy lacks the function.
    try:
        return os.pwritev(descriptor, [data], -1, _RWF_NOWAIT)
    except BlockingIOError:
        raise
    except (OSError, AttributeError):
        pass
    ready = select.poll()
    ready.register(descriptor, select.POLLOUT)
    if not ready.poll(0):
        raise BlockingIOError
    return os.write(descriptor, data[: 1 if os.isatty(descriptor) else _CHUNK_BYTES])


class Outlet:
    """Writes lines to one descriptor in order. ``notice`` makes the line that says how many were lost, and why."""

    def __init__(self, descriptor: int, notice: Callable[[int, str], bytes]) -> None:
        self.descriptor = descriptor
        self._notice = notice
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._reason = ""
        self._turn = allocate_lock()  # nobody waits for it

    def _forget_if_forked(self) -> None:
        if self._pid != os.getpid():  # the parent writes the waiting lines
            self._forget()

    def write(self, line: bytes) -> None:
        """Write ``line``, now or when there is room, or count it as lost. Never waits, never raises."""
        self._forget_if_forked()
        if self._lines and self._waiting_bytes + len(line) > MOST_BYTES:
            self._lose("its reader takes none")
        else:
            self._lines.append(line)
            self._waiting_bytes += len(line)
        self.flush()

    def flush(self) -> None:
        """Write waiting lines, as far as there is room. Call it now and then."""
        self._forget_if_forked()
        turn = self._turn
        if self._lines and turn.acquire(
            False
        ):  # otherwise another thread, or the code that a signal has interrupted, is writing
            try:
                self._write_lines()
            finally:
                turn.release()

    @property
    def is_waiting(self) -> bool:
        """Whether lines wait for room: call `flush` in a moment."""
        return bool(self._lines)

    def drain(self, seconds: float) -> None:
        """Write waiting lines; give a slow reader up to ``seconds``."""
        give_up_at = monotonic() + seconds
        self.flush()
        while self._lines and monotonic() < give_up_at:
            sleep(0.01)
            self.flush()

    def _lose(self, reason: str) -> None:
        self._lost += 1
        self._reason = reason

    def _write_lines(self) -> None:
        has_written = False
        while self._lines:
            line = self._lines[0]
            try:
                written = write_now(self.descriptor, line)
                has_written = True
            except BlockingIOError:
                return
            except OSError as error:  # a full disk stops the log, never the service
                written = len(line)
                self._lose(error.strerror or "")
            self._waiting_bytes -= written
            if written < len(line):
                self._lines[0] = line[written:]
            else:
                self._lines.popleft()
        self._waiting_bytes = 0  # threads may have miscounted
        if has_written and self._lost:
            self._tell_losses()

    def _tell_losses(self) -> None:
        lost = self._lost
        with contextlib.suppress(OSError):
            write_now(self.descriptor, self._notice(lost, self._reason))
            self._lost -= lost


def say(text: str) -> None:
    """Print ``text`` to stderr for the user who started this; a closed or full stderr is no error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
        write_now(sys.stderr.fileno(), f"{text}\n".encode("utf-8", "backslashreplace"))
