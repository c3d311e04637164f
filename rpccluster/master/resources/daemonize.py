"""Moves the master to the background, and tells the shell how the start went. Runs before anything is opened.

The process that the user started waits until the daemon says that its workers are up, or how the start failed; the
daemon's answer is its exit code. The daemon itself prints the faults, since its stderr is still the user's.
"""

from __future__ import annotations

import contextlib
import os

from rpccluster.errors import EXIT_FAULT
from rpccluster.system import write

__all__ = ["StartReport", "daemonize"]


class StartReport:
    """Tells the waiting process how the start went; does nothing if the master runs in the foreground."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    @property
    def is_awaited(self) -> bool:
        """Whether a process waits and has had no answer yet."""
        return self._descriptor is not None

    def send(self, exit_code: int) -> None:
        """Send the exit code of the start, once."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            write(self._descriptor, bytes([exit_code]))
        if exit_code:  # the waiting process goes on only when this one has ended and left nothing behind
            self._descriptor = None
        else:
            self.close()

    def close(self) -> None:
        """Close this process's copy."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def daemonize() -> StartReport:
    """Go on in the background, in a new session. Returns in the daemon; the calling process waits and exits."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(write_end)
        _wait_and_exit(read_end)
    os.close(read_end)
    os.setsid()
    if os.fork():  # without a session leader's rights it can never get a terminal again
        os._exit(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    _close_what_it_was_born_with()
    return StartReport(write_end)


def _close_what_it_was_born_with() -> None:
    """Close inherited descriptors: a process may wait for the end of a pipe, or for a lock.

    Python makes its own descriptors non-inheritable, so an inheritable one came through the exec that started us.
    """
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself has gone
            if int(name) > 2 and os.get_inheritable(int(name)):
                os.close(int(name))


def _wait_and_exit(read_end: int) -> None:
    answer = os.read(read_end, 1)
    os.read(read_end, 1)  # end-of-file: at once, or when the failed process has ended
    os._exit(answer[0] if answer else EXIT_FAULT)  # no answer: the daemon died before it sent one
