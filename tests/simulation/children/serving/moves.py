"""The connections of a made-up worker that come and go by its master: given, adopted, and what is said of them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from typing import TYPE_CHECKING

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import Adopted, CancelCall, DonorGone, Give, Message, Refused, Release, Released, Reply
from rpccluster.ipc.scoreboard import Cell
from rpccluster.worker.lifecycle import State

from ...world.process import Died
from ..wire import CALL, LOST, REPLY, client_of
from .connections import Connection

if TYPE_CHECKING:
    from .ledger import Note
    from .worker import Worker

__all__ = ["Moves"]


class Moves:
    """One worker's end of the channel of connections, ``channel``."""

    def __init__(self, worker: Worker, channel: Channel) -> None:
        self._worker = worker
        self._world = worker.world
        self.channel = channel
        self._unannounced: list[tuple[Give, int]] = []  # adopted ones, until that is said
        self._given = 0
        self._leaving: list[Note] = []  # given ones, until that is said

    @property
    def is_due(self) -> bool:
        """Whether something has come, or is still to be said."""
        return self.channel.fileno() in self._world.come or self.has_work

    @property
    def has_work(self) -> bool:
        """Whether something is still to be said."""
        return bool(self.channel.has_unsent or self._unannounced)

    def say(self, message: Message) -> None:
        """Send ``message`` to the master."""
        self._worker.say(self.channel, message)

    # -- giving

    def release(self, order: Release) -> None:
        """Give as many connections as the master asks for."""
        self.read()  # what has come
        chosen = [each for each in self._worker.connections.all() if not each.is_eof][: order.number]
        for connection in chosen:
            self._worker.act()
            self._give(connection)
        self.say(Released(len(chosen)))

    def _give(self, connection: Connection) -> None:
        worker = self._worker
        if not connection.number and worker.keeping is not None:
            connection.number = worker.keeping.new_number()
        elif not connection.number:
            self._given += 1
            connection.number = worker.serial << 32 | self._given
        awaited = [list(call) for call in connection.awaited.elements()]
        awaited += [[worker.serial, msgid] for msgid in connection.running]
        told = b"".join(CALL.pack(msgid) for msgid in connection.waiting)
        give = Give(connection.number, [], connection.is_eof, told, connection.unsent, awaited)
        give = give._replace(unread_until=connection.unread_until)
        packet = self.channel.pack(give, [connection.socket.fileno()])
        worker.connections.let_go(connection).detach()
        self._world.count("message", "Give")
        self._world.tell(worker.name, f"gives the connection of client {connection.client}")
        self._world.on_their_way.add(connection.client)
        self.channel.post(packet)
        worker.row[Cell.HANDED_OVER] += 1
        for msgid, until in connection.running.items():
            worker.calls.forwards[connection.number, msgid] = until
        if connection.note is not None:
            self._leaving.append(connection.note)
        self._end_notes()

    def _end_notes(self) -> None:
        """Forget the connections that have moved, as soon as the master can know."""
        while self._leaving and not self.channel.has_unsent:
            self._leaving.pop().end()

    # -- what the master says

    def read(self) -> None:
        """Heed what has come, and send what waits."""
        self._worker.each(self.channel, self._hear)
        self.channel.flush()
        self._end_notes()
        while self._unannounced and not self.channel.has_unsent:
            self._begin(*self._unannounced.pop(0))

    def _hear(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Give):
            self._take(message, descriptors)
        elif isinstance(message, Reply):
            self._take_reply(message)
        elif isinstance(message, DonorGone):
            self._note_lost(message)
        elif isinstance(message, CancelCall):
            self._worker.calls.cancel_moved(message)

    def _take(self, give: Give, descriptors: list[int]) -> None:
        worker = self._worker
        try:
            worker.act()
            is_gone = worker.state is State.GONE or not descriptors
            if is_gone or (not self._world.is_calm and worker.random.random() < 0.01):
                for descriptor in descriptors:
                    os.close(descriptor)
                self.say(Refused(give.cid))
                return
            self.say(Adopted(give.cid))
        except Died:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            raise
        self._unannounced.append((give, descriptors[0]))

    def _begin(self, give: Give, descriptor: int) -> None:
        worker = self._worker
        sock = socket.socket(fileno=descriptor)
        client = client_of(sock)
        worker.row[Cell.ADOPTED] += 1
        self._world.on_their_way.discard(client)
        connection = Connection(client, sock, give.cid, give.is_eof, is_adopted=True, unread_until=give.unread_until)
        connection.awaited = Counter((serial, msgid) for serial, msgid in give.awaited)
        self._world.tell(worker.name, f"adopts the connection of client {client}")
        worker.connections.add(connection)
        if worker.keeping is not None:
            worker.keeping.keep_adopted(connection, give.input, give.output)
        connection.unsent = give.output
        worker.calls.take(connection, give.input)
        if worker.retiring.order is not None and worker.retiring.order.whole_cluster:
            connection.is_eof = True

    def _take_reply(self, reply: Reply) -> None:
        connection = self._worker.connections.by_number(reply.cid)
        if connection is None:
            self.say(reply)
            return
        msgid, _ = REPLY.unpack(reply.data)
        if _stop_awaiting(connection, (reply.serial, msgid)):
            self._worker.calls.answer(connection, reply.data)

    def _note_lost(self, gone: DonorGone) -> None:
        for connection in self._worker.connections.all():
            if not connection.number or gone.cid not in (0, connection.number):
                continue
            for serial, msgid in [*connection.awaited.elements()]:
                if serial == gone.serial or (gone.is_and_older and serial < gone.serial):
                    _stop_awaiting(connection, (serial, msgid))
                    self._worker.calls.answer(connection, REPLY.pack(msgid, LOST))

    # -- the end

    def release_unannounced(self) -> None:
        """Close what was adopted and never served, as the kernel does at the worker's end."""
        parent = self._worker.parent
        is_kept = self._worker.keeping is not None and parent is not None and parent.is_alive
        for _, descriptor in self._unannounced:
            with socket.socket(fileno=descriptor) as sock:
                if not is_kept:
                    self._world.excuse(client_of(sock), f"{self._worker.name} has ended", is_torn=True)


def _stop_awaiting(connection: Connection, call: tuple[int, int]) -> bool:
    """Note that a call which ran elsewhere has ended. Returns whether it was awaited."""
    if not connection.awaited[call]:
        return False
    connection.awaited[call] -= 1
    connection.awaited += Counter()
    return True
