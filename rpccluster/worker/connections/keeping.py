"""Has the master keep a copy of each connection's socket, by which the connection outlives this worker.

Runs in the worker. `rpccluster.master.handover.copies` has the copies. The engine notes in the ledger what the master
needs besides. A copy is sent before the first byte of its connection is read, and keeps the connection open until the
master has closed it; so the end of a connection is told to the peer by shutdown(2).

The master watches the channel of copies for nothing: what stands in it counts as told, since the master reads it when
the worker has ended. It is asked to now and then, so that the kernel holds few descriptors.
"""

from __future__ import annotations

import _socket
import contextlib
from typing import Any, Callable

from rpccluster.ipc.messages import Collect, Drop, Keep, Noted
from rpccluster.ledger.why import KIND_OF_SOCKET, LEDGER_FULL
from rpccluster.log import logger
from rpccluster.system.stream_counters import counts_unix_sockets
from rpccluster.worker.connections.connection import Connection
from rpccluster.worker.connections.given import address_of
from rpccluster.worker.connections.giving import epoll_of
from rpccluster.worker.connections.handover_channel import HandoverChannel

__all__ = ["Keeping", "why_unnoted"]

MOST_AT_ONCE = 64  # in one message
MOST_UNREAD = 256  # told and not collected yet
MOST_ENDED = 1024  # not told yet: as many fit into a packet
COLLECT_SECONDS = 0.1


def why_unnoted(family: int) -> str:
    """Return why the ledger does not have a connection over sockets of this ``family``."""
    return KIND_OF_SOCKET if family == _socket.AF_UNIX and not counts_unix_sockets() else LEDGER_FULL


class Keeping:
    """The connections of one worker that its master has yet to hear of."""

    def __init__(
        self, loop: Any, copies: HandoverChannel, channel: HandoverChannel, new_number: Callable[[], int]
    ) -> None:
        """``copies`` is the channel of copies; on ``channel`` the master is asked to read it."""
        self._loop = loop
        self._copies = copies
        self._channel = channel
        self._new_number = new_number
        self._untold: list[Connection] = []
        self._ended: list[int] = []
        self._unread = 0  # that were told since the master was asked
        # Repeating and started by again(): libev forgets the time of a timer that fires once.
        self._timer = loop.timer(0.0, COLLECT_SECONDS)
        self._is_waiting = False

    def number_for(self, sock: _socket.socket) -> int:
        """Return a number for an accepted connection."""
        return self._new_number()

    def add(self, connection: Connection) -> None:
        """Have the master keep a copy of the socket of ``connection``, of which the engine has read nothing."""
        connection.outbox.begin_note()
        if connection.outbox.is_noted:
            self._untold.append(connection)
        else:
            self._copies.say(Noted(connection.number, False, why_unnoted(connection.family)))
            self._note_unread(1)

    def add_now(self, connection: Connection) -> None:
        """Have the master keep a copy at once, of one whose handshake the loop has watched."""
        with contextlib.suppress(OSError), epoll_of(self._loop) as epoll:  # the copy would keep it in the loop's set
            epoll.unregister(connection.fileno())
        self.add(connection)
        self.tell()

    def tell(self) -> None:
        """Send what was added: call it before the loop goes on, and something is read."""
        untold, self._untold = [each for each in self._untold if not each.is_closed], []
        for place in range(0, len(untold), MOST_AT_ONCE):
            batch = untold[place : place + MOST_AT_ONCE]
            told = [[each.number, address_of(each.outbox.peer), list(each.outbox.identity.names)] for each in batch]
            try:
                self._copies.say(Keep(batch[0].number, told), [each.fileno() for each in batch])
                self._note_unread(len(batch))
            except OSError as error:
                logger.warning("The master keeps no copies of %d connections: %s", len(batch), error)

    def note_ended(self, number: int) -> None:
        """Have the master close its copy of the connection ``number``, soon."""
        self._ended.append(number)
        self._note_unread(0)

    def _note_unread(self, count: int) -> None:
        self._unread += count
        if self._unread >= MOST_UNREAD or len(self._ended) >= MOST_ENDED:
            self._ask()
        elif not self._is_waiting:
            self._is_waiting = True
            self._timer.again(self._ask)

    def _ask(self) -> None:
        self._timer.stop()
        self._is_waiting = False
        self._unread = 0
        if self._ended:
            ended, self._ended = self._ended, []
            self._copies.say(Drop(ended))
        self._channel.say(Collect())
