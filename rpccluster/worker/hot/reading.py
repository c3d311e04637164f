"""Whether a connection's socket is read, and why not. Runs in the worker, on the loop's callbacks.

What is made of the bytes is `rpccluster.worker.connections.connection`'s.
"""

from __future__ import annotations

import _socket
from typing import Any

from rpccluster.ipc.scoreboard import Cell
from rpccluster.worker.connections.context import ConnectionContext
from rpccluster.worker.connections.states import Pause
from rpccluster.worker.hot.outbox import Output

__all__ = ["Reading"]

_READ = 1


class Reading(Output):
    """A socket that is read unless there is a `Pause`, of which there may be several at once."""

    __slots__ = ("_address", "_pause", "_reader")

    def __init__(self, common: ConnectionContext, sock: _socket.socket, address: Any) -> None:
        super().__init__(common, sock)
        self._address = address
        self._pause = Pause.NOT
        self._reader = common.loop.io(sock.fileno(), _READ)

    def _on_readable(self) -> None:
        raise NotImplementedError

    @property
    def peer(self) -> str:
        """The client's address, for log lines."""
        address = self._address
        if isinstance(address, (tuple, list)) and len(address) >= 2:
            return f"[{address[0]}]:{address[1]}" if ":" in str(address[0]) else f"{address[0]}:{address[1]}"
        return "a Unix socket"

    @property
    def is_paused(self) -> bool:
        """Whether its socket is not read for now."""
        return bool(self._pause)

    def _stop(self, reason: Pause) -> None:
        self._pause |= reason
        self.needs_look = True
        self._reader.stop()

    def _note_pause(self, limit: Cell, why: str) -> None:
        self._all.limits.note(limit, f"Not reading from {self.peer} for now", why)

    def _go_on(self, reason: Pause) -> None:
        if self._pause & reason:
            self._pause &= ~reason
            if not self._pause and not self.is_closed:
                self.needs_look = False
                self._reader.start(self._on_readable)

    def resume_starved(self) -> None:
        """Greenlets are free again."""
        self._go_on(Pause.STARVED)
