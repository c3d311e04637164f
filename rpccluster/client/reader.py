"""The thread that waits for the calls nobody waits for: those of `Client.call_async`.

It takes its turns like everybody else who waits, as long as such calls are pending; when there have been none for
a while it ends, and the next such call starts another. Owns the bell that gets it out of its sleep.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from typing import Protocol

from rpccluster.client.calls import Call
from rpccluster.client.wire import NOW

__all__ = ["Attended", "Reader"]

_REST_SECONDS = 5.0


class Attended(Protocol):
    """What a reader waits for."""

    has_ended: bool

    def attend(self, me: Call) -> bool:
        """Wait for one thing to happen; false if there is nothing to wait for."""

    def dismiss(self) -> bool:
        """Let the reader end, unless there is something to wait for again."""


class Reader:
    """Starts its thread at once; what it waits for sees to it that there is one reader at a time."""

    def __init__(self, attended: Attended) -> None:
        self._attended = attended
        self._bell, self._hammer = socket.socketpair()
        self._bell.setblocking(False)
        self._hammer.setblocking(False)
        self._is_rung = threading.Event()
        #: Stands for the thread among those who wait: a call that never begins.
        self.me = Call(math.inf, self._bell)
        threading.Thread(target=self._run, name="rpccluster reader", daemon=True).start()

    def ring(self) -> None:
        """Something is new: look again."""
        with contextlib.suppress(OSError):  # full: it has not heard the last ones yet
            self._hammer.send(b"!", NOW)
        self._is_rung.set()  # after the bell, which would ring on if it were emptied only before

    def close(self) -> None:
        """Give the bell back."""
        self._bell.close()
        self._hammer.close()

    def _run(self) -> None:
        attended = self._attended
        while True:
            if self._is_rung.is_set():
                self._is_rung.clear()
                with contextlib.suppress(OSError):
                    self._bell.recv(4096)
            has_work = attended.attend(self.me) or (not attended.has_ended and self._is_rung.wait(_REST_SECONDS))
            if not has_work and attended.dismiss():
                return self.close()
