"""The calls of a made-up worker: read, begun, cancelled, and answered at once or later, wherever their callers are."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from rpccluster.ipc.messages import CancelCall, Reply
from rpccluster.ledger.layout import BegunKind
from rpccluster.system import MSG_NOSIGNAL

from ..wire import ANSWERED, CALL, CANCEL, CANCELLED, GAVE_UP, REPLY

if TYPE_CHECKING:
    from .connections import Connection
    from .ledger import Note
    from .worker import Worker

__all__ = ["Calls"]


class Calls:
    """Those of one worker. ``forwards`` are the calls whose connections have moved, and until when they run."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._world = worker.world
        self.forwards: dict[tuple[int, int], float] = {}  # by the connection's number and the call's
        self.replied: dict[int, float] = {}  # those of moved connections: when they were answered

    def read(self) -> None:
        """Read calls, and what their callers do not want any more."""
        for connection in self._worker.connections.all():
            if connection.is_eof or self._world.now < connection.unread_until:
                continue
            self._worker.act()
            try:
                data = connection.note.receive() if connection.note is not None else connection.socket.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                connection.is_eof = True
                self._world.unwatch(connection.socket.fileno())
                self._pass_on_cancel(connection, None)
            self.take(connection, data)

    def take(self, connection: Connection, data: bytes) -> None:
        """Take what was read. What a ledger has is heeded in the order in which it came, and the rest at once."""
        for (number,) in CALL.iter_unpack(data):
            if number & CANCEL and connection.note is None:
                self._cancel(connection, number & ~CANCEL)
            else:
                connection.waiting.append(number)

    def _cancel(self, connection: Connection, msgid: int) -> None:
        """End a call that waits or runs here, or have it ended where it runs; it may have ended before."""
        if msgid in connection.waiting:
            connection.waiting.remove(msgid)
        elif connection.running.pop(msgid, None) is None:
            self._pass_on_cancel(connection, msgid)
            return
        self.answer(connection, REPLY.pack(msgid, CANCELLED))

    def _pass_on_cancel(self, connection: Connection, only: int | None) -> None:
        """Tell the workers that run calls of this connection to end one; None: all, since their caller has gone."""
        for serial, msgid in list(connection.awaited):
            if only in (None, msgid):
                self._worker.moves.say(CancelCall(connection.number, serial, msgid, only is None))

    def cancel_moved(self, message: CancelCall) -> None:
        """End a call whose connection has moved, unless its caller has gone and the method goes on then."""
        may_end = not message.is_gone or self._worker.random.random() < 0.5
        if may_end and self.forwards.pop((message.cid, message.msgid), None) is not None:
            self._reply(message.cid, message.msgid, CANCELLED)

    def look_after(self) -> None:
        """End what has run for long enough, begin what waits, and close the connections that are done with."""
        now, random = self._world.now, self._worker.random
        for connection in self._worker.connections.all():
            for msgid in [msgid for msgid, until in connection.running.items() if now >= until]:
                del connection.running[msgid]
                self.answer(connection, REPLY.pack(msgid, ANSWERED))
            if connection.unread_until and now >= connection.unread_until:
                self._worker.connections.forgive(connection)
            if connection.waiting and not connection.unread_until and random.random() < 0.8:
                self._begin_waiting(connection)
            if connection.unsent:
                self._worker.act()
                self._send(connection)
            if connection.is_eof and not connection.is_busy:
                self._worker.connections.close(connection, "its client, or the cluster, has ended it")
        for (number, msgid), until in list(self.forwards.items()):
            if now >= until:
                del self.forwards[number, msgid]
                self._reply(number, msgid, ANSWERED)

    def _begin_waiting(self, connection: Connection) -> None:
        """Begin the calls of a connection that wait."""
        if connection.note is not None:
            self._begin_noted(connection, connection.note)
            return
        for msgid in connection.waiting:
            self._worker.act()
            self._world.begin_call(msgid, self._worker)
            connection.running[msgid] = self._world.now + self._duration()
        connection.waiting = []

    def _begin_noted(self, connection: Connection, note: Note) -> None:
        """Begin the calls of a connection that wait, each as the ledger has to be told of it."""
        note.ledger.work_at(note.number)
        while connection.waiting:
            self._worker.act()
            number = connection.waiting[0]
            if number & CANCEL:
                note.begin_call(number, BegunKind.NOTIFICATION, bool)
                del connection.waiting[0]
                self._cancel(connection, number & ~CANCEL)
                note.forget_call(number)
            else:
                note.begin_call(number, BegunKind.REQUEST, partial(self._world.begin_call, number, self._worker))
                del connection.waiting[0]
                connection.running[number] = self._world.now + self._duration()
        note.ledger.work_at(0)

    def give_up(self) -> None:
        """Answer what still runs with an error."""
        for connection in self._worker.connections.all():
            for msgid in list(connection.running):
                del connection.running[msgid]
                self.answer(connection, REPLY.pack(msgid, GAVE_UP))
        for number, msgid in list(self.forwards):
            del self.forwards[number, msgid]
            self._reply(number, msgid, GAVE_UP)

    def _reply(self, number: int, msgid: int, kind: int) -> None:
        """Answer a call whose connection has moved."""
        self._worker.moves.say(Reply(number, self._worker.serial, REPLY.pack(msgid, kind)))
        self.replied[msgid] = self._world.now

    def _duration(self) -> float:
        kind = self._worker.random.random()
        return 0.0 if kind < 0.3 else self._worker.random.random() * (0.4 if kind < 0.8 else 6.0)

    def answer(self, connection: Connection, data: bytes) -> None:
        """Send an answer to a caller, which may have gone."""
        self._worker.act()
        if connection.note is not None:
            msgid, _ = REPLY.unpack(data)
            connection.note.answer(msgid, data)
        connection.unsent += data
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        """Send what is to be sent, or, if the ledger has it, a part of it."""
        data, note, random = connection.unsent, connection.note, self._worker.random
        connection.unsent = b""
        with contextlib.suppress(OSError):
            if note is None:
                connection.socket.send(data, MSG_NOSIGNAL)
            else:
                most = random.randrange(1, len(data) + 1) if random.random() < 0.3 else len(data)
                connection.unsent = data[note.send(data[:most]) :]
