"""The connections that a made-up worker serves: each is accepted or adopted, and closed or given away."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rpccluster.ipc.messages import Closed
from rpccluster.ipc.scoreboard import Cell

from ...world.process import NEVER
from ..wire import client_of

if TYPE_CHECKING:
    from .ledger import Note
    from .worker import Worker

__all__ = ["Connection", "Connections"]


@dataclass(eq=False)
class Connection:
    """A connection that this worker serves; ``client`` is the number of whom it leads to."""

    client: int
    socket: socket.socket
    number: int = 0  # as the masters know it, once it has moved, or is kept
    is_eof: bool = False
    is_adopted: bool = False
    unread_until: float = 0.0  # workers have crashed at its calls
    unsent: bytes = b""
    note: Note | None = None  # what the worker's ledger has of it
    is_kept: bool = False  # the master has a copy, or will have read of one
    waiting: list[int] = field(default_factory=list)  # calls that were read and have not begun
    running: dict[int, float] = field(default_factory=dict)  # until when
    awaited: Counter[tuple[int, int]] = field(default_factory=Counter)  # calls that run elsewhere

    @property
    def is_busy(self) -> bool:
        return bool(self.waiting or self.running or self.awaited or self.unsent)

    def due_at(self, now: float) -> float:
        """When there is something to do for it, if nothing comes."""
        if self.unsent or (self.is_eof and not self.is_busy):
            return now
        if self.waiting or self.unread_until:
            return max(now, self.unread_until)
        return min(self.running.values()) if self.running else NEVER


class Connections:
    """Those of one worker, by the numbers of their clients."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._world = worker.world
        self.by_client: dict[int, Connection] = {}

    def __iter__(self) -> Iterator[int]:
        return iter(self.by_client)

    def __len__(self) -> int:
        return len(self.by_client)

    def all(self) -> list[Connection]:
        """Return them, in the order in which they came."""
        return list(self.by_client.values())

    def by_number(self, number: int) -> Connection | None:
        """Return the one that the masters know by ``number``."""
        return next((each for each in self.by_client.values() if each.number == number), None)

    def accept(self, listener: socket.socket) -> None:
        """Accept one, if one waits."""
        with contextlib.suppress(BlockingIOError):
            self._worker.act()
            sock, _ = listener.accept()
            connection = Connection(client_of(sock), sock)
            self.add(connection)
            if self._worker.keeping is not None:
                self._worker.keeping.keep(connection)
            self._worker.row[Cell.ACCEPTED] += 1

    def add(self, connection: Connection) -> None:
        """Serve ``connection`` from now on."""
        connection.socket.setblocking(False)
        self._world.own(connection.client, self._worker)
        self.by_client[connection.client] = connection
        if connection.client in self._world.clients:
            self._world.clients[connection.client].is_accepted = True
        if self._world.now >= connection.unread_until:
            self._world.watch(connection.socket.fileno(), self._worker)
        self._count()

    def forgive(self, connection: Connection) -> None:
        """Read a connection again that was not read for a while."""
        connection.unread_until = 0.0
        self._world.watch(connection.socket.fileno(), self._worker)

    def let_go(self, connection: Connection) -> socket.socket:
        """Serve ``connection`` no more. Returns its socket, which is open."""
        self._world.unwatch(connection.socket.fileno())
        del self.by_client[connection.client], self._world.owners[connection.client]
        self._count()
        return connection.socket

    def close(self, connection: Connection, why: str) -> None:
        """End ``connection``."""
        self._world.excuse(connection.client, why)
        keeping = self._worker.keeping
        if connection.note is not None:
            connection.note.end()
        if keeping is not None:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)  # the master's copy keeps it open
        if connection.is_adopted:
            self._worker.moves.say(Closed(connection.number))
        elif keeping is not None:
            keeping.note_ended(connection.number)
        self.let_go(connection).close()

    def read_no_more(self, why: str) -> None:
        """Read none any more: each ends when its calls have ended."""
        for connection in self.by_client.values():
            connection.is_eof = True
            self._world.unwatch(connection.socket.fileno())
            self._world.excuse(connection.client, why)

    def release(self) -> None:
        """Close all of them, as the kernel does at the worker's end. Those that the ledger covers go on elsewhere."""
        keeping = self._worker.keeping
        for connection in self.all():
            if keeping is not None and keeping.covers(connection):
                keeping.leave(connection)
            else:
                self._world.excuse(connection.client, f"{self._worker.name} has ended", is_torn=True)
            self._world.unwatch(connection.socket.fileno())
            connection.socket.close()
            del self._world.owners[connection.client]
        self.by_client.clear()

    def _count(self) -> None:
        self._worker.row[Cell.CONNECTIONS] = len(self.by_client)
