"""The calls of a made-up worker: read, begun, cancelled, and answered at once or later, wherever their callers are."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rpccluster.ipc.messages import CancelCall, Reply
from rpccluster.system import MSG_NOSIGNAL

from .wire import ANSWERED, CALL, CANCEL, CANCELLED, GAVE_UP, REPLY

if TYPE_CHECKING:
    from .connections import Connection
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
            if connection.is_eof:
                continue
            self._worker.act()
            try:
                data = connection.socket.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                connection.is_eof = True
                self._world.unwatch(connection.socket.fileno())
                self._pass_on_cancel(connection, None)
            for (number,) in CALL.iter_unpack(data):
                if number & CANCEL:
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
            if connection.waiting and random.random() < 0.8:
                for msgid in connection.waiting:
                    self._worker.act()
                    self._world.begin_call(msgid, self._worker)
                    connection.running[msgid] = now + self._duration()
                connection.waiting = []
            if connection.is_eof and not connection.is_busy:
                self._worker.connections.close(connection, "its client, or the cluster, has ended it")
        for (number, msgid), until in list(self.forwards.items()):
            if now >= until:
                del self.forwards[number, msgid]
                self._reply(number, msgid, ANSWERED)

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
        with contextlib.suppress(OSError):
            connection.socket.send(data, MSG_NOSIGNAL)
