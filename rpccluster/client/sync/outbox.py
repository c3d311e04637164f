"""The bytes that a connection sends: the kernel takes some at once, and the rest is kept until it takes more.

Owns the count by which a connection knows, at its end, which calls have left at least in part. Locks nothing: every
call of it is under the connection's lock.
"""

from __future__ import annotations

from collections.abc import Callable

from rpccluster.client.sync.wire import Wire
from rpccluster.client.threads.sockets import NOW
from rpccluster.errors import NotSent

__all__ = ["Outbox"]


class Outbox:
    """Sends over ``wire``, and calls ``note_failure`` when that takes nothing any more."""

    def __init__(self, wire: Wire, note_failure: Callable[[], None]) -> None:
        #: What is kept; always this object.
        self.unsent = bytearray()
        #: How many bytes have ever been kept.
        self.kept = 0
        self._send = wire.send
        self._note_failure = note_failure

    @property
    def handed_over(self) -> int:
        """How many of all the bytes that were ever kept have been handed over."""
        return self.kept - len(self.unsent)

    def start_of(self, data: bytes) -> int:
        """Return where the ``data`` just sent starts among all bytes ever kept; before their end if none was kept."""
        return self.kept - len(data)

    def send(self, data: bytes) -> None:
        """Send what the kernel takes at once, and keep the rest. Raises `NotSent` if it takes nothing any more."""
        sent = 0
        if not self.unsent:
            try:
                sent = self._send(data, NOW)
            except BlockingIOError:
                pass
            except OSError as error:
                self._note_failure()
                raise NotSent(f"the connection failed: {error}; the call did not run") from None
        if sent != len(data):
            self.unsent += memoryview(data)[sent:]
            self.kept += len(data) - sent

    def flush(self) -> None:
        """Send as much of the kept bytes as the kernel takes."""
        try:
            while self.unsent:
                del self.unsent[: self._send(self.unsent, NOW)]
        except BlockingIOError:
            pass
        except OSError:
            self._note_failure()
