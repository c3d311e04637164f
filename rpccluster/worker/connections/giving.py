"""Gives connections to the master for another worker, and forwards the replies of their calls that still run here.

Runs in the worker. Once a connection is given, its donor neither reads nor writes its socket.
`rpccluster.master.handover.broker` takes it on.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from functools import partial
from time import monotonic
from typing import Any

from gevent.monkey import get_original

from rpccluster.ipc.messages import Give, Release, Released, Reply
from rpccluster.ipc.scoreboard import Cell, Row
from rpccluster.log import logger
from rpccluster.system import Reserve
from rpccluster.worker.connections.connection import Connection
from rpccluster.worker.connections.context import ConnectionContext
from rpccluster.worker.connections.given import address_of
from rpccluster.worker.connections.handover_channel import HandoverChannel
from rpccluster.worker.hot import Engine

__all__ = ["Giving", "epoll_of"]


class Giving:
    """The connections of one worker that go to another one."""

    def __init__(
        self,
        loop: Any,
        channel: HandoverChannel,
        context: ConnectionContext,
        engine: Engine,
        row: Row,
        serial: int,
        kind: str = "",
    ) -> None:
        """``serial`` is this worker's; the numbers of the connections that it gives begin with it.

        ``kind`` is its kind, if it is no worker.
        """
        self._loop = loop
        self._channel = channel
        self._context = context
        self._engine = engine
        self._row = row
        self._serial = serial
        self._kind = kind
        self._reserve = Reserve(2)  # for the loop's epoll set, and for one memory file
        self._numbers = 0
        self._gave_at = 0.0  # when the last one went

    def stop(self) -> None:
        """Give no more, since this worker ends."""
        self._reserve.close()

    def tell(self, retired_at: float) -> None:
        """Log how many connections have moved, for a worker that was told to retire at ``retired_at``."""
        given, adopted = self._row[Cell.HANDED_OVER], self._row[Cell.ADOPTED]
        if given or adopted:
            seconds = max(0.0, self._gave_at - retired_at)
            text = "Worker (pid: %d) has handed over %d connections, the last one after %.3f seconds; adopted %d"
            logger.info(text, os.getpid(), given, seconds, adopted)

    def release(self, order: Release) -> None:
        """Give away as many connections as the master wants, and send their number."""
        given = 0
        error: Exception | None = None
        try:
            # a reply that has come must not be passed on, behind the news that its worker has ended
            self._channel.hear_what_has_come()
            with self._reserve.lent(), epoll_of(self._loop) as epoll:  # first, since it takes a descriptor
                given, error = self._give_some(self._choose(order.number), order.number_bytes, epoll)
        except Exception as failed:
            error = failed
        if error is not None:
            self._context.limits.note(Cell.DESCRIPTORS, "Cannot give connections away", str(error), logging.WARNING)
        self._channel.say(Released(given))

    def _give_some(self, chosen: list[Connection], number_bytes: int, epoll: Any) -> tuple[int, Exception | None]:
        """Give connections until ``number_bytes`` have gone along. Returns how many, and why others could not go.

        A connection that cannot go is served on here, with all that it had.
        """
        given = 0
        error: Exception | None = None
        withdrawn = self._engine.withdraw({connection.outbox for connection in chosen})
        waiting = {connection: withdrawn.get(connection.outbox, []) for connection in chosen}
        running = self._engine.running_msgids([connection.outbox for connection in chosen])
        try:
            for connection in chosen:
                if number_bytes <= 0:
                    break
                try:
                    size = self._give(connection, waiting[connection], running.get(connection.outbox, []), epoll)
                except Exception as failed:  # no descriptor, or no memory, is left
                    error = failed
                    continue
                del waiting[connection]
                given, number_bytes = given + 1, number_bytes - size
        finally:
            for connection, messages in waiting.items():
                if messages:
                    connection.inbox.queue_again(messages)
        return given, error

    def _choose(self, number: int) -> list[Connection]:
        """Return up to ``number`` connections that can move and have nothing to send at once, those at rest first."""
        movable = [connection for connection in self._context.open if connection.is_movable]
        movable.sort(key=lambda connection: not connection.is_at_rest)
        chosen = movable[:number]
        for connection in chosen:
            connection.outbox.flush()  # a flush may find that the peer is gone
        return [connection for connection in chosen if connection.is_movable]

    def _give(self, connection: Connection, waiting: list[Any], running: list[int], epoll: Any) -> int:
        """Give one connection away. Returns how many bytes went along.

        Raises as `packed_again` does, or OSError if there is no descriptor; then nothing has changed.
        """
        number = connection.number or self.new_number()
        awaited = [list(call) for call in connection.awaited.elements()] + [[self._serial, msgid] for msgid in running]
        given = connection.picture(waiting)
        give = Give(
            number,
            address_of(given.peer),
            given.is_eof,
            given.input,
            given.output,
            awaited,
            self._kind,
            list(given.identity.names),
            given.is_entering,
            given.waited,
            monotonic(),
            given.unread_until,
        )
        packet = self._channel.pack(give, [connection.fileno()])
        connection.outbox.moved_as = number
        sock = connection.move(partial(self._forward, number))
        # the loop relies on closing; but another copy of the socket lives on and keeps it in the set, epoll(7)
        with contextlib.suppress(OSError):
            epoll.unregister(sock.fileno())
        sock.detach()  # it is the packet's
        self._channel.post(packet)
        self._channel.when_said(connection.outbox.end_note)
        self._row[Cell.HANDED_OVER] += 1
        self._gave_at = monotonic()
        return len(given.input) + len(given.output)

    def new_number(self) -> int:
        """Return a number that no other connection has."""
        self._numbers += 1
        return self._serial << 32 | self._numbers

    def _forward(self, number: int, replies: list[bytes]) -> None:
        """Send the replies of calls that have ended here after their connection had moved."""
        for data in replies:
            self._channel.pass_on(Reply(number, self._serial, data))


@contextlib.contextmanager
def epoll_of(loop: Any) -> Iterator[Any]:
    """Yield the loop's own epoll set, a new object each time, since the loop may rebuild the set."""
    epoll = get_original("select", "epoll").fromfd(os.dup(loop.fileno()))
    try:
        yield epoll
    finally:
        epoll.close()
