"""Going to the background, and telling the shell how the start went. Runs before the master has anything else.

The process that the user started waits until the daemon says that its workers are up, or how it failed; its
exit code is the daemon's answer. Faults are printed by the daemon itself, whose stderr is still the user's.
"""

from __future__ import annotations

import contextlib
import os

from rpccluster.errors import EXIT_FAULT
from rpccluster.system import write

__all__ = ["StartReport", "daemonize"]


class StartReport:
    """Whoever waits for the start; nobody if the master runs in the foreground."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits, and has not been told yet."""
        return self._descriptor is not None

    def send(self, exit_code: int) -> None:
        """Say how the start went, once."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            write(self._descriptor, bytes([exit_code]))
        if exit_code:  # whoever waits is to go on only when this process is gone: it left nothing behind
            self._descriptor = None
        else:
            self.close()

    def close(self) -> None:
        """Close this process's copy."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def daemonize() -> StartReport:
    """Go on in a new session, in the background. Returns in the daemon; the caller's process waits and exits."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(write_end)
        _wait_and_exit(read_end)
    os.close(read_end)
    os.setsid()
    if os.fork():  # not a session leader: it can never get a terminal again
        os._exit(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    _close_what_it_was_born_with()
    return StartReport(write_end)


def _close_what_it_was_born_with() -> None:
    """A pipe whose end somebody waits for, or a lock. All that Python opens itself is not inheritable, so what is
    came through an exec, from whoever started us."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing has gone
            if int(name) > 2 and os.get_inheritable(int(name)):
                os.close(int(name))


def _wait_and_exit(read_end: int) -> None:
    answer = os.read(read_end, 1)
    os.read(read_end, 1)  # end-of-file: at once, or when the process that failed is gone
    os._exit(answer[0] if answer else EXIT_FAULT)  # no answer: the daemon died without a word
