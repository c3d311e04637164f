"""Adopts connections that another worker has given, and answers their calls that still run elsewhere.

Runs in the worker. Before an adopter has sent `Adopted` it neither reads nor writes the socket, and it begins only when
the master can know: until then the master would give the connection to another worker if this one died.
"""

from __future__ import annotations

import _socket
import os
from functools import partial
from time import monotonic
from typing import Callable

from rpccluster.identity import identity_of
from rpccluster.ipc.messages import Adopted, CancelCall, Closed, DonorGone, Give, Message, Noted, Refused, Reply
from rpccluster.ipc.scoreboard import Cell, Row
from rpccluster.protocol.codec import msgid_of, pack_response
from rpccluster.worker.connections.connection import Connection
from rpccluster.worker.connections.context import ConnectionContext
from rpccluster.worker.connections.given import Given, peer_of
from rpccluster.worker.connections.handover_channel import HandoverChannel
from rpccluster.worker.connections.keeping import why_unnoted
from rpccluster.worker.hot import Engine

__all__ = ["Adopting"]

_LOST = "WorkerLost: the worker that ran this call has died"

#: Makes a connection of a socket, its number, what was given, and the calls of it that run elsewhere.
Adopt = Callable[[_socket.socket, int, Given, list[list[int]]], Connection]


class Adopting:
    """The connections of one worker that have come from another one."""

    def __init__(
        self, channel: HandoverChannel, context: ConnectionContext, engine: Engine, adopt: Adopt, row: Row
    ) -> None:
        self._channel = channel
        self._adopted: dict[int, Connection] = context.adopted
        self._engine = engine
        self._adopt = adopt
        self._row = row
        self._has_stopped = False
        self._unannounced: set[int] = set()  # descriptors of those that the master cannot have heard of yet
        self._on_adopted = context.on_adopted
        context.on_closed = self._note_closed
        context.on_cancel = self._tell_cancel
        channel.listen(self._hear)

    def stop(self) -> None:
        """Adopt no more, since this worker ends. It still reads replies, which may be for connections it has given."""
        self._has_stopped = True

    def leave_to_parent(self) -> None:
        """Close, in a forked child, connections that are not announced yet and that nothing else holds."""
        for descriptor in self._unannounced:
            os.close(descriptor)

    def _hear(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Give):
            self._take(message, descriptors)
        elif isinstance(message, Reply):
            self._take_reply(message)
        elif isinstance(message, DonorGone):
            self._note_lost(message)
        elif isinstance(message, CancelCall):
            self._engine.cancel_moved(message.cid, message.msgid, message.is_gone)

    def _take(self, give: Give, descriptors: list[int]) -> None:
        if self._has_stopped or not descriptors:
            for descriptor in descriptors:
                os.close(descriptor)
            self._channel.say(Refused(give.cid))
            return
        self._channel.say(Adopted(give.cid))
        self._unannounced.add(descriptors[0])
        self._channel.when_said(partial(self._begin, give, descriptors[0]))

    def _begin(self, give: Give, descriptor: int) -> None:
        """Go on with the connection, since the master knows, or will read, that this worker has it."""
        self._unannounced.remove(descriptor)
        sock = _socket.socket(fileno=descriptor)
        sock.setblocking(False)
        family = sock.family
        self._row[Cell.ADOPTED] += 1  # the master tells by this what is still on its way here
        self._on_adopted(max(0.0, monotonic() - give.given_at) if give.given_at else 0.0)
        identity = identity_of(*give.identity)
        given = Given(
            peer_of(give.peer),
            give.is_eof,
            give.input,
            give.output,
            identity,
            give.is_entering,
            give.waited,
            give.unread_until,
        )
        connection = self._adopt(sock, give.cid, given, give.awaited)
        if self._engine.has_ledger and not give.is_entering:
            is_noted = connection.outbox.is_noted
            self._channel.say(Noted(give.cid, is_noted, "" if is_noted else why_unnoted(family)))

    def _take_reply(self, reply: Reply) -> None:
        connection = self._adopted.get(reply.cid)
        if connection is None:  # given on, or closed, before the master knew
            self._channel.pass_on(reply)
            return
        if not reply.data:  # it came without its memory file: no descriptor was left
            connection.close("a reply was lost, since this process may hold no more descriptors")
            return
        if connection.stop_awaiting((reply.serial, msgid_of(reply.data))):  # else it was answered as lost
            self._engine.answer(connection.outbox, reply.data)

    def _note_lost(self, gone: DonorGone) -> None:
        """Answer the calls that died with the worker that ran them."""
        asked = [*self._adopted] if not gone.cid else [gone.cid] if gone.cid in self._adopted else []
        for connection in [self._adopted[number] for number in asked]:
            for serial, msgid in [*connection.awaited.elements()]:
                if serial == gone.serial or (gone.is_and_older and serial < gone.serial):
                    connection.stop_awaiting((serial, msgid))
                    self._engine.answer(connection.outbox, pack_response(msgid, _LOST, None))

    def _tell_cancel(self, connection: Connection, serial: int, msgid: int, is_gone: bool) -> None:
        """Have a call cancelled that runs in the worker ``serial``."""
        self._channel.say(CancelCall(connection.number, serial, msgid, is_gone))

    def _note_closed(self, connection: Connection) -> None:
        self._channel.say(Closed(connection.number))
