"""Signals to the master: handlers that only note the number, and the descriptor that wakes the loop.

Owns the handlers and the wake-up pipe. What a signal means is in `rpccluster.master.control.commands`.

TTOU is let in only while the loop waits. Else a line that a master in the background writes to its terminal, where
``stty tostop`` is set, would make the kernel send TTOU instead of writing, again and again; who blocks it may write.
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


class SignalInbox:
    """Collects the numbers of signals that came, in their order; ``fileno()`` turns readable with each.

    Made before anything is published by which this process can be found: from then on no signal ends it.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for signum in HANDLED:
            signal.signal(signum, self._note)
        signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGTTOU])  # whoever started us may have blocked some

    def _note(self, signum: int, frame: object) -> None:
        if signum not in self._numbers:  # equal ones that wait are one, as the kernel has it
            self._numbers.append(signum)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let in all signals while the loop waits and nothing is written."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])

    def fileno(self) -> int:
        """The descriptor to watch for reading."""
        return self._read_end

    def drain(self) -> None:
        """Empty the wake-up pipe; the numbers stay for `take`."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read_end, 512):
                pass

    def take(self) -> list[int]:
        """The signals since the last call."""
        numbers = []
        while self._numbers:
            numbers.append(self._numbers.pop(0))
        return numbers


def reset_for_exec() -> None:
    """Undo handlers, wake-up descriptor and mask: a blocked or ignored signal stays so across an exec."""
    signal.set_wakeup_fd(-1)
    for signum in HANDLED:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
