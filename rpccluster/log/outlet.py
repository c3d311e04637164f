"""Lines to a descriptor whose reader nobody waits for: a pipe that is full, a terminal that stands still.

What is not taken at once waits in a bounded buffer of this process; what does not fit in there is dropped and
counted, and the count is a line of its own as soon as there is room. Any process, any thread.

O_NONBLOCK belongs to the open file description, which is shared with whoever gave us the descriptor: to set it on
an inherited stderr would change the terminal, or the pipe, for the user's shell and all that writes there. So
`own_description` asks for a description of our own of the same pipe or terminal. Where none can be had (a socket, a
pipe of another user) each write is made so that it does not wait: see `write_now`.
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
from time import monotonic, sleep  # as they are before gevent patches: at its end a worker has no loop to wait with
from typing import Callable

from rpccluster.system import without_sigpipe

__all__ = ["MOST_BYTES", "Outlet", "own_description", "say", "write_now"]

MOST_BYTES = 256 << 10  # that wait, in each process

_RWF_NOWAIT = 8  # uio.h
_CHUNK_BYTES = select.PIPE_BUF  # what has room as soon as poll(2) says so


def own_description(descriptor: int) -> int:
    """A descriptor of our own, which never waits, for the pipe or terminal that ``descriptor`` leads to.

    Itself where none can be had, or for what keeps nobody waiting: a file has but one end to be appended to.
    """
    for path in _other_ways(descriptor):
        with contextlib.suppress(OSError):
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return descriptor


def _other_ways(descriptor: int) -> Iterator[str]:
    """Paths that lead to the same pipe or terminal."""
    with contextlib.suppress(OSError):
        is_terminal = os.isatty(descriptor)
        if is_terminal or stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            yield f"/proc/self/fd/{descriptor}"
        if is_terminal:
            os.tcgetpgrp(descriptor)  # an error unless it is this session's: then everybody may open it so,
            yield "/dev/tty"  # although it may belong to another user, after su(1)


def write_now(descriptor: int, data: bytes) -> int:
    """write(2) that does not wait, whatever ``descriptor`` is. Raises BlockingIOError, or another OSError."""
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
    """Lines to one descriptor, in their order. ``notice`` makes the line that tells how many were lost, and why."""

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
        self._turn = allocate_lock()  # never waited for

    def _forget_if_forked(self) -> None:
        if self._pid != os.getpid():  # what waits is the parent's to write
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
        """Write what waits, as far as there is room. Call it now and then."""
        self._forget_if_forked()
        turn = self._turn
        if self._lines and turn.acquire(False):  # else another thread, or whom a signal has interrupted, is at it
            try:
                self._write_lines()
            finally:
                turn.release()

    def drain(self, seconds: float) -> None:
        """Write what waits; give a slow reader so long."""
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
    """Print ``text`` to stderr for the person who started this; a stderr that is closed, or full, is no error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
        write_now(sys.stderr.fileno(), f"{text}\n".encode("utf-8", "backslashreplace"))
