"""All connections of a worker: adding them, and ending those that are late, quiet or no longer served.

Runs in the worker, on the loop's timers; a single connection is in `rpccluster.worker.connections.connection`.
"""

from __future__ import annotations

import _socket
from typing import Any

from rpccluster.ipc.scoreboard import Cell
from rpccluster.worker.connections.connection import Connection
from rpccluster.worker.connections.context import ConnectionContext

__all__ = ["Connections"]

HELD_UP_SECONDS = 2.0  # without a sweep, of which there are two a second: something held the worker up


class Connections(ConnectionContext):
    """The connections that are open, and what is done to many of them at once."""

    is_ending = False  # nothing more is read; a connection that comes now ends, too
    _swept_at: float | None = None

    def add(self, sock: _socket.socket, peer: Any) -> Connection:
        """Serve an accepted, non-blocking socket."""
        connection = Connection(self, sock, peer)
        self.open.add(connection)
        self.on_count(len(self.open))
        return connection

    def sweep(self) -> None:
        """Close what has passed a deadline. Called twice a second.

        Time in which a peer was not listened to is not counted: a method held the worker up, or it reads nothing
        more of this connection for now. What came meanwhile, the kernel has.
        """
        now = self.clock()
        if self._swept_at is not None and now - self._swept_at > HELD_UP_SECONDS:
            self._excuse(now - self._swept_at)
        self._swept_at = now
        for connection in self.partial:
            if connection.is_paused:
                self.partial[connection] = now + self.options.message_timeout
        for late, limit in ((self.partial, Cell.MESSAGE_TIMEOUT), (self.unsent, Cell.WRITE_TIMEOUT)):
            for connection in _late(late, now):
                connection.close(f"{limit.name.lower()} passed", limit)
        for connection in _late(self.lingering, now):
            connection.close()
        if self.options.idle_timeout:
            for connection in [c for c in self.open if c.is_quiet_for(self.options.idle_timeout, now)]:
                connection.close_idle()

    def _excuse(self, seconds: float) -> None:
        """Put every deadline off: for ``seconds`` this worker has neither read nor sent."""
        for deadlines in (self.partial, self.unsent, self.lingering):
            for connection in deadlines:
                deadlines[connection] += seconds
        for connection in self.open:
            connection.excuse(seconds)

    def stop_reading(self) -> None:
        """Read nothing more; each connection ends when its running calls are answered."""
        self.is_ending = True
        unanswered = self.engine.unanswered()
        for connection in list(self.open):
            connection.stop_reading(unanswered.get(connection, ()))

    def leave_to_parent(self) -> None:
        """In a forked child: let go of every socket."""
        for connection in self.open:
            connection.leave_to_parent()


def _late(deadlines: dict[Connection, float], now: float) -> list[Connection]:
    return [connection for connection, deadline in deadlines.items() if now > deadline]
