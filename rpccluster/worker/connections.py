"""All connections of a worker: adding them, and ending those that are late, quiet or no longer served.

Runs in the worker, on the loop's timers; a single connection is in `rpccluster.worker.connection`.
"""

from __future__ import annotations

import _socket
from time import monotonic
from typing import Any

from rpccluster.ipc.scoreboard import Cell
from rpccluster.worker.connection import Connection
from rpccluster.worker.connection_context import ConnectionContext

__all__ = ["Connections"]


class Connections(ConnectionContext):
    """The connections that are open, and what is done to many of them at once."""

    is_ending = False  # nothing more is read; a connection that comes now ends, too

    def add(self, sock: _socket.socket, peer: Any) -> Connection:
        """Serve an accepted, non-blocking socket."""
        connection = Connection(self, sock, peer)
        self.open.add(connection)
        self.on_count(len(self.open))
        return connection

    def sweep(self) -> None:
        """Close what has passed a deadline. Called twice a second."""
        now = monotonic()
        for late, limit in ((self.partial, Cell.MESSAGE_TIMEOUT), (self.unsent, Cell.WRITE_TIMEOUT)):
            for connection in _late(late, now):
                connection.close(f"{limit.name.lower()} passed", limit)
        for connection in _late(self.lingering, now):
            connection.close()
        if self.options.idle_timeout:
            for connection in [c for c in self.open if c.is_quiet_for(self.options.idle_timeout, now)]:
                connection.close("idle_timeout passed", Cell.IDLE_TIMEOUT)

    def stop_reading(self) -> None:
        """Read nothing more; each connection ends when its running calls are answered."""
        self.is_ending = True
        for connection in list(self.open):
            connection.stop_reading()


def _late(deadlines: dict[Connection, float], now: float) -> list[Connection]:
    return [connection for connection, deadline in deadlines.items() if now > deadline]
