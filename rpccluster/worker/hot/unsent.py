"""Output that the kernel has no room for, and sending it when there is. Runs in the worker, on the loop's callbacks.

Made when a send falls short, gone when all is sent. Owns the watcher for writing, not the socket.
"""

from __future__ import annotations

import _socket
from collections import deque
from typing import Any, Callable

from rpccluster.system import MSG_NOSIGNAL

__all__ = ["Unsent"]

JOINED_BYTES = 4096  # of small pieces, which become one: each would cost two hundred bytes beside its own

_WRITE = 2


class Unsent:
    """Pieces of output in their order; ``size`` is their bytes."""

    __slots__ = ("_on_error", "_on_progress", "_pieces", "_socket", "_watcher", "size")

    def __init__(
        self, loop: Any, sock: _socket.socket, on_progress: Callable[[], None], on_error: Callable[[], None]
    ) -> None:
        """``on_progress`` is called when some of it was sent, and then no more if ``size`` is 0."""
        self._socket = sock
        self._pieces: deque[memoryview | bytearray] = deque()
        self._on_progress = on_progress
        self._on_error = on_error
        self.size = 0
        self._watcher = loop.io(sock.fileno(), _WRITE)
        self._watcher.start(self._on_writable)

    def add(self, piece: memoryview) -> None:
        """Send ``piece``, too, in its turn."""
        last = self._pieces[-1] if self._pieces else None
        if type(last) is bytearray and len(last) + len(piece) <= JOINED_BYTES:
            last += piece
        else:
            self._pieces.append(bytearray(piece) if len(piece) <= JOINED_BYTES else piece)
        self.size += len(piece)

    def content(self) -> bytes:
        """All of it."""
        return b"".join(self._pieces)

    def _on_writable(self) -> None:
        before = self.size
        try:
            self._send()
        except OSError:
            self._on_error()
            return
        if not self.size:
            self.close()
        if self.size < before:
            self._on_progress()

    def _send(self) -> None:
        """Send until there is no room. Raises OSError if the peer is gone."""
        pieces = self._pieces
        try:
            while pieces:
                sent = self._socket.send(pieces[0], MSG_NOSIGNAL)
                self.size -= sent
                if sent == len(pieces[0]):
                    pieces.popleft()
                else:
                    pieces[0] = memoryview(pieces[0])[sent:]
        except (BlockingIOError, InterruptedError):
            pass

    def close(self) -> None:
        """Stop watching."""
        self._watcher.stop()
        self._watcher.close()
