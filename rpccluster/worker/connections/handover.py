"""Connections that move: giving them to the master, adopting them, and the replies that follow them.

Runs in the worker. From the moment a connection is given its donor neither reads nor writes its socket; before
an adopter has said `Adopted` it does neither. What lies between is the master's: `rpccluster.master.handover.broker`.
"""

from __future__ import annotations

import _socket
import contextlib
import logging
import os
from collections.abc import Iterator
from functools import partial
from time import monotonic
from typing import Any

from gevent.monkey import get_original

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import Adopted, Closed, DonorGone, Give, Message, Refused, Release, Released, Reply
from rpccluster.ipc.scoreboard import Cell, Row
from rpccluster.log import logger
from rpccluster.protocol.codec import msgid_of, pack_response
from rpccluster.system import READABLE, WRITABLE, Reserve
from rpccluster.worker.connections.connection import Connection
from rpccluster.worker.connections.given import Given, address_of, peer_of
from rpccluster.worker.connections.table import Connections
from rpccluster.worker.hot import Engine, Outbox

__all__ = ["Handover"]

BARRED_SECONDS = 0.02  # until the channel is tried again when its user has too many descriptors in flight

_LOST = "WorkerLost: the worker that ran this call has died"


class Handover:
    """The connections of one worker that come from, or have gone to, another."""

    def __init__(
        self, loop: Any, channel: Channel, connections: Connections, engine: Engine, row: Row, serial: int
    ) -> None:
        self._loop = loop
        self._reserve = Reserve(2)  # for the loop's epoll set, and for one memory file
        self._limits = connections.context.limits
        self._channel = channel
        self._connections = connections
        self._engine = engine
        self._row = row
        self._serial = serial
        self._has_stopped = False
        self._numbers = 0
        self._gave_at = 0.0  # when the last one went
        self._adopted: dict[int, Connection] = connections.context.adopted
        self._kept_back: list[Reply] = []  # for which no descriptor could be had
        self._unannounced: list[partial[None]] = []  # adoptions that the master cannot have heard of yet
        self._reader = loop.io(channel.fileno(), READABLE)
        self._writer = loop.io(channel.fileno(), WRITABLE)
        self._retry = loop.timer(0.0, BARRED_SECONDS)  # repeating: libev forgets the time of one that fires once
        self._reader.start(self._on_readable)
        connections.context.on_closed = self._note_closed

    @property
    def is_quiet(self) -> bool:
        """Whether the master has, or can have, all that was given."""
        return not (self._channel.has_unsent or self._kept_back)

    def obey(self, message: Message) -> None:
        """What the master wants on the channel for messages."""
        if isinstance(message, Release):
            self._release(message.number, message.number_bytes)

    def stop(self) -> None:
        """Adopt nothing any more, since this worker ends. Replies are read on: they may be for what it has given."""
        self._has_stopped = True
        self._reserve.close()

    def leave_to_parent(self) -> None:
        """In a forked child: let go of the connections that are not announced yet. Nobody else has them in hand."""
        for begin in self._unannounced:
            os.close(begin.args[1])

    def tell(self, retired_at: float) -> None:
        """Log how many connections have moved, for a worker that was told to retire at ``retired_at``."""
        given, adopted = self._row[Cell.HANDED_OVER], self._row[Cell.ADOPTED]
        if given or adopted:
            seconds = max(0.0, self._gave_at - retired_at)
            text = "Worker (pid: %d) has handed over %d connections, the last one after %.3f seconds; adopted %d"
            logger.info(text, os.getpid(), given, seconds, adopted)

    # -- giving

    def _release(self, number: int, number_bytes: int) -> None:
        given = 0
        error: Exception | None = None
        try:
            with self._reserve.lent(), _epoll_of(self._loop) as epoll:  # first, since it takes a descriptor
                given, error = self._give_some(self._choose(number), number_bytes, epoll)
        except Exception as failed:
            error = failed
        if error is not None:
            self._limits.note(Cell.DESCRIPTORS, "Cannot give connections away", str(error), logging.WARNING)
        self._say(Released(given))

    def _give_some(self, chosen: list[Connection], number_bytes: int, epoll: Any) -> tuple[int, Exception | None]:
        """Give one after another, until ``number_bytes`` have gone along. How many; and why some could not go.

        What does not go is served on here, with all that it had.
        """
        given = 0
        error: Exception | None = None
        withdrawn = self._engine.withdraw({connection.outbox for connection in chosen})
        waiting = {connection: withdrawn.get(connection.outbox, []) for connection in chosen}
        running = self._running_msgids()
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
        """Up to ``number`` of those that can move, and have nothing left to send at once, idle ones first."""
        movable = [connection for connection in self._connections.open if connection.is_movable]
        movable.sort(key=lambda connection: not connection.is_at_rest)
        chosen = movable[:number]
        for connection in chosen:
            connection.outbox.flush()  # which may find that its peer is gone
        return [connection for connection in chosen if connection.is_movable]

    def _running_msgids(self) -> dict[Outbox, list[int]]:
        running: dict[Outbox, list[int]] = {}
        for outbox, request in self._engine.running():
            if len(request) == 4:  # nobody waits for a notification
                running.setdefault(outbox, []).append(request[1])
        return running

    def _give(self, connection: Connection, waiting: list[Any], running: list[int], epoll: Any) -> int:
        """Give one connection away; returns how many bytes went along.

        Raises what `packed_again` does, or OSError if no descriptor can be had; then nothing has changed.
        """
        cid = connection.number or self._new_cid()
        awaited = connection.awaited + [[self._serial, msgid] for msgid in running]
        given = connection.picture(waiting)
        give = Give(cid, address_of(given.peer), given.is_eof, given.input, given.output, awaited)
        packet = self._channel.pack(give, [connection.fileno()])
        sock = connection.move(partial(self._forward, cid))
        # the loop thinks that closing will do; but another copy of the socket lives on, and epoll(7) with it
        with contextlib.suppress(OSError):
            epoll.unregister(sock.fileno())
        sock.detach()  # it is the packet's
        self._channel.post(packet)
        self._mind_writing()
        self._row[Cell.HANDED_OVER] += 1
        self._gave_at = monotonic()
        return len(given.input) + len(given.output)

    def _new_cid(self) -> int:
        self._numbers += 1
        return self._serial << 32 | self._numbers

    def _forward(self, cid: int, replies: list[bytes]) -> None:
        """Calls have ended here whose connection has moved on."""
        for data in replies:
            self._pass_on(Reply(cid, self._serial, data))

    def _pass_on(self, reply: Reply) -> None:
        """To whoever has its connection; a long one needs a descriptor, and waits for one."""
        try:
            self._say(reply)
        except OSError:
            self._kept_back.append(reply)
            self._retry.again(self._on_writable)

    # -- adopting

    def _on_readable(self) -> None:
        for message, descriptors in self._channel.receive():
            if isinstance(message, Give):
                self._adopt(message, descriptors)
            elif isinstance(message, Reply):
                self._take_reply(message)
            elif isinstance(message, DonorGone):
                self._note_lost(message)

    def _adopt(self, give: Give, descriptors: list[int]) -> None:
        if self._has_stopped or not descriptors:
            for descriptor in descriptors:
                os.close(descriptor)
            self._say(Refused(give.cid))
            return
        self._say(Adopted(give.cid))
        begin = partial(self._begin, give, descriptors[0])
        if self._channel.has_unsent:
            self._unannounced.append(begin)
        else:
            begin()

    def _begin(self, give: Give, descriptor: int) -> None:
        """The master knows, or will read, that the connection is ours: go on with it."""
        sock = _socket.socket(fileno=descriptor)
        sock.setblocking(False)
        self._row[Cell.ADOPTED] += 1  # the master tells by this what is still on its way here
        self._connections.adopt(
            sock, give.cid, Given(peer_of(give.peer), give.is_eof, give.input, give.output), give.awaited
        )

    def _take_reply(self, reply: Reply) -> None:
        connection = self._adopted.get(reply.cid)
        if connection is None:  # given on, or closed, before the master knew
            self._pass_on(reply)
            return
        if not reply.data:  # it came without its memory file: no descriptor was left
            connection.close("a reply was lost, since this process may hold no more descriptors")
            return
        with contextlib.suppress(ValueError):  # else it is answered already, for its worker has died
            connection.awaited.remove([reply.serial, msgid_of(reply.data)])
            self._engine.answer(connection.outbox, reply.data)

    def _note_lost(self, gone: DonorGone) -> None:
        """Answer the calls that died with the worker that ran them."""
        asked = [*self._adopted] if not gone.cid else [gone.cid] if gone.cid in self._adopted else []
        for connection in [self._adopted[number] for number in asked]:
            for call in [*connection.awaited]:
                if call[0] == gone.serial or (gone.is_and_older and call[0] < gone.serial):
                    connection.awaited.remove(call)
                    self._engine.answer(connection.outbox, pack_response(call[1], _LOST, None))

    def _note_closed(self, connection: Connection) -> None:
        if connection.number:
            self._say(Closed(connection.number))

    # -- saying

    def _say(self, message: Message, descriptors: list[int] | None = None) -> None:
        self._channel.send(message, descriptors or ())
        self._mind_writing()

    def _mind_writing(self) -> None:
        if self._channel.wants_to_write:
            self._writer.start(self._on_writable)
        else:
            self._writer.stop()
        if self._channel.is_barred or self._kept_back:
            self._retry.again(self._on_writable)
        else:
            self._retry.stop()

    def _on_writable(self) -> None:
        self._channel.flush()
        kept_back, self._kept_back = self._kept_back, []
        for reply in kept_back:
            self._pass_on(reply)
        self._mind_writing()
        if not self._channel.has_unsent:
            begins, self._unannounced = self._unannounced, []
            for begin in begins:
                begin()


@contextlib.contextmanager
def _epoll_of(loop: Any) -> Iterator[Any]:
    """The loop's own epoll set, made anew each time: the loop may rebuild it."""
    epoll = get_original("select", "epoll").fromfd(os.dup(loop.fileno()))
    try:
        yield epoll
    finally:
        epoll.close()
