"""Signals to the master: handlers that only note the number, and the descriptor that wakes the loop.

Owns the handlers and the wake-up pipe. `rpccluster.master.control.commands` obeys the signals.

TTOU is unblocked only while the loop waits. If a terminal has ``stty tostop`` set, the kernel sends TTOU to a
background process that writes to it, again and again, and does not write; a process that blocks TTOU may write.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

__all__ = ["HANDLED", "SignalInbox", "reset_for_exec"]

HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGCHLD,
)

_NOTED = (*HANDLED, signal.SIGCONT)  # which says that this process was stopped, and goes on


class SignalInbox:
    """Collects the numbers of signals in their order; ``fileno()`` turns readable with each signal.

    It must exist before anything shows this process's pid: from then on no signal ends the process.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for signum in _NOTED:
            signal.signal(signum, self._note)
        signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGTTOU])  # the parent may have blocked some

    def _note(self, signum: int, frame: object) -> None:
        if signum not in self._numbers:  # equal signals that wait count as one, as in the kernel
            self._numbers.append(signum)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Unblock TTOU, too, while the loop waits and writes nothing."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])

    def fileno(self) -> int:
        """Return the descriptor to watch for reading."""
        return self._read_end

    def drain(self) -> None:
        """Empty the wake-up pipe; the numbers stay for `take`."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read_end, 512):
                pass

    def take(self) -> list[int]:
        """Return the signals since the last call."""
        numbers = []
        while self._numbers:
            numbers.append(self._numbers.pop(0))
        return numbers


def reset_for_exec() -> None:
    """Reset handlers, wake-up descriptor and mask, since a blocked or ignored signal stays so across an exec."""
    signal.set_wakeup_fd(-1)
    for signum in _NOTED:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
