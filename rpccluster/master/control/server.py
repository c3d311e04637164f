"""The control socket: MessagePack-RPC to the master, on the master's loop. Runs in the master.

Owns the listener and its clients, and bounds the cost of these. `rpccluster.master.control.operations` has the methods;
a reply may come much later, when the work is done.

The master takes one call of a client in a turn of the loop. It reads a client only when it has taken all earlier calls
and sent their replies. So a client that floods the socket, or reads nothing, costs the master a few KiB, and signals,
workers and other clients have their turn. A client that waits for nothing and is silent is closed in time; if there are
too many, the one that was silent longest is closed. Only root and the master's own user may connect. The kernel says
who connects (SO_PEERCRED): the path's mode alone would admit any user that can change it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any, Callable

from rpccluster.errors import ProtocolError
from rpccluster.failure import error_text
from rpccluster.log import escaped, logger
from rpccluster.master.loop import Loop
from rpccluster.master.resources.listeners import Listener
from rpccluster.protocol.codec import pack_response
from rpccluster.protocol.messages import Message, Request, misfit_text
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.stream import StreamDecoder
from rpccluster.rate_limit import LogLimiter, and_more
from rpccluster.system import MSG_NOSIGNAL, peer_process

__all__ = ["Answer", "ControlServer", "Method"]

MOST_CLIENTS = 64
MOST_WAITING = 16  # unanswered calls of one client
SILENT_SECONDS = 60.0  # that a client may ask nothing, or leave a reply unread
REST_SECONDS = 0.5  # until the next accept(2), after one had no descriptor
_ACCEPTS_A_TURN = 16
_MESSAGE_BYTES = 4_096
_MESSAGE_DEPTH = 10
_RECEIVE_BYTES = 2_048  # at once: some hundred tiny messages may then wait for their turn

#: A method of the control socket; it gets the params and the answer to fill in.
Method = Callable[["list[Any]", "Answer"], None]


class ControlServer:
    """Listens on the control socket, if one is configured, and calls methods; serves no client before `serve`."""

    def __init__(self, loop: Loop, listener: Listener | None, *, clock: Callable[[], float] = monotonic) -> None:
        """``clock`` returns monotonic seconds."""
        self.loop = loop
        self.listener = listener
        self.methods: Mapping[str, Method] = {}
        self.clock = clock
        self.clients: set[_Client] = set()
        self._limiter = LogLimiter(clock=clock)
        self._rests_until: float | None = None

    def serve(self, methods: Mapping[str, Method]) -> None:
        """Accept clients from now on, and call ``methods`` for them."""
        self.methods = methods
        self._listen()

    def _listen(self) -> None:
        self._rests_until = None
        if self.listener is not None and self.methods:
            self.listener.socket.setblocking(False)
            self.loop.watch(self.listener.socket, self._on_readable)

    @property
    def wake_at(self) -> float:
        """When `turn` must be called if nothing happens before (monotonic seconds); infinity if never."""
        rests = [] if self._rests_until is None else [self._rests_until]
        silent = [client.heard_at + SILENT_SECONDS for client in self.clients if client.is_silent]
        return min([*rests, *silent], default=float("inf"))

    def turn(self) -> None:
        """Close the clients that have been silent for too long; end a rest that is over."""
        now = self.clock()
        for client in list(self.clients):
            if client.is_silent and now >= client.heard_at + SILENT_SECONDS:
                client.close(f"it was silent for {SILENT_SECONDS:g} seconds")
        if self._rests_until is not None and now >= self._rests_until:
            self._listen()

    def log(self, subject: str, message: str, *args: object) -> None:
        """Log a line about a client, unless there was one about the same ``subject`` just now."""
        is_due, held_back = self._limiter.should_log(subject)
        if is_due:
            logger.info(message + "%s", *args, and_more(held_back))

    def _on_readable(self) -> None:
        assert self.listener is not None
        try:
            for _ in range(_ACCEPTS_A_TURN):
                sock, _ = self.listener.socket.accept()
                self._admit(sock)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._rest(error)

    def _admit(self, sock: socket.socket) -> None:
        pid, uid = peer = peer_process(sock)
        if uid not in (0, os.geteuid()):
            self.log("uid", "Refusing the control socket to pid %d: its uid is %d, expected the master's or 0", *peer)
            sock.close()
        elif self._make_room():
            self.clients.add(_Client(self, sock, pid, uid))
        else:
            sock.close()

    def _rest(self, error: OSError) -> None:
        """Stop watching the listener for a moment: accept(2) had no descriptor, and the listener stays readable."""
        assert self.listener is not None
        self.log("accept", "Cannot accept a connection to the control socket: %s", error)
        self.loop.unwatch(self.listener.socket)
        self._rests_until = self.clock() + REST_SECONDS

    def _make_room(self) -> bool:
        """Make room for one more client; if need be, close the one that was silent longest."""
        if len(self.clients) < MOST_CLIENTS:
            return True
        silent = [client for client in self.clients if client.is_silent]
        if silent:
            min(silent, key=lambda client: client.heard_at).close(
                f"there are {MOST_CLIENTS} clients, and it was silent longest"
            )
        return bool(silent)

    def listen_anew(self, listener: Listener) -> None:
        """Listen at the socket of ``listener`` from now on, which is bound to the same path. Clients stay."""
        assert self.listener is not None
        self.loop.unwatch(self.listener.socket)
        self.listener.become(listener)
        self._listen()

    def stop_listening(self, *, is_last: bool) -> None:
        """Close the listener; with ``is_last``, also remove the path. Clients stay."""
        self._rests_until = None
        if self.listener is not None:
            self.loop.unwatch(self.listener.socket)
            self.listener.close(is_last=is_last)

    def close(self) -> None:
        """Close all clients."""
        for client in list(self.clients):
            client.close()


class Answer:
    """Sends the outcome of a call. Call it once, now or later, with an error's text or None, and a result."""

    def __init__(self, client: _Client, msgid: int) -> None:
        self._client = client
        self._msgid = msgid

    @property
    def uid(self) -> int:
        """The uid of the client's process, when it connected."""
        return self._client.uid

    @property
    def is_awaited(self) -> bool:
        """Whether the client is still connected."""
        return not self._client.is_closed

    def __call__(self, error: str | None, result: Any) -> None:
        self._client.answer(self._msgid, error, result)


class _Client:
    """One connection to the control socket.

    The master takes one call of it in a turn of the loop. It reads the connection only when it has taken all earlier
    calls and the client has read their replies. So a client that floods or does not read costs the master no memory.
    """

    def __init__(self, server: ControlServer, sock: socket.socket, pid: int, uid: int) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.heard_at = server.clock()  # when the last whole message came, or the last reply was made
        self.is_closed = False
        self._server = server
        self._pid = pid
        self.uid = uid
        self._decoder = StreamDecoder(Bounds(_MESSAGE_BYTES, _MESSAGE_DEPTH))
        self._messages: Iterator[Message] | None = None  # that have come and wait for their turn
        self._waiting = 0  # unanswered calls
        self._unsent = b""
        server.loop.watch(sock, self._on_readable)

    @property
    def is_silent(self) -> bool:
        """Whether the master waits for the client to ask or to read."""
        return not self._waiting

    def _on_readable(self) -> None:
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(str(error))
            return
        if data:
            self._messages = self._decoder.feed(data)
            self._go_on()
        else:
            self.close()

    def _go_on(self) -> None:
        """Send due replies, then take one message; the next one in the next turn of the loop."""
        self._flush()
        if self._messages is not None and not self._unsent and not self.is_closed:
            try:
                message = next(self._messages, None)
            except ProtocolError as error:
                self.close(str(error))
                return
            if message is None:
                self._messages = None
            else:
                self.heard_at = self._server.clock()
                if isinstance(message, Request):
                    self._call(message)
        self._watch()

    def _watch(self) -> None:
        if not self.is_closed:
            if self._unsent or self._messages is not None:
                self._server.loop.rewatch(self.socket, None, self._go_on)
            else:
                self._server.loop.rewatch(self.socket, self._on_readable, None)

    def _call(self, request: Request) -> None:
        self._waiting += 1
        answer = Answer(self, request.msgid)
        method = self._server.methods.get(request.method)
        if method is None:
            answer(f"'{request.method}' method not found", None)
        elif type(request.params) is not list:
            answer(f"ArgumentError: {misfit_text(request.params)}", None)
        elif self._waiting > MOST_WAITING:
            answer(f"RuntimeError: {MOST_WAITING} calls of this connection are not answered yet", None)
        else:
            self._run(method, request, answer)

    def _run(self, method: Method, request: Request, answer: Answer) -> None:
        try:
            method(request.params, answer)
        except (TypeError, ValueError) as error:
            answer(f"ArgumentError: {error}", None)
        except Exception as error:  # a fault of rpccluster must not end the master and its cluster
            logger.exception("The control method %s failed", escaped(request.method))
            answer(error_text(error), None)

    def answer(self, msgid: int, error: str | None, result: Any) -> None:
        """Send the reply to a call, now or when the client has read those before."""
        if not self.is_closed:
            self._waiting -= 1
            self.heard_at = self._server.clock()
            self._unsent += pack_response(msgid, error, result)
            self._flush()
            self._watch()

    def _flush(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent, MSG_NOSIGNAL) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self.close(str(error))

    def close(self, reason: str = "") -> None:
        """Close the connection, and log ``reason`` if there is one."""
        if not self.is_closed:
            self.is_closed = True
            self._unsent, self._messages = b"", None
            self._server.loop.unwatch(self.socket)
            self.socket.close()
            self._server.clients.discard(self)
            if reason:
                self._server.log("close", "Closing the control connection of pid %d: %s", self._pid, escaped(reason))
