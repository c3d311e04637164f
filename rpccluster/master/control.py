"""The control socket: MessagePack-RPC to the master, on its own loop. Runs in the master.

Owns the listener and its clients. What the methods do is the supervisor's; a reply may come much later, when
the thing is done.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Callable

from rpccluster.errors import ProtocolError
from rpccluster.log import escaped, logger
from rpccluster.master.listeners import Listener
from rpccluster.master.loop import Loop
from rpccluster.protocol.codec import pack_response
from rpccluster.protocol.messages import Request
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.stream import StreamDecoder

__all__ = ["Answer", "ControlServer", "Method"]

MOST_CLIENTS = 64
_MESSAGE_BYTES = 65_536
_MESSAGE_DEPTH = 10
_UNSENT_BYTES = 8 << 20
_RECEIVE_BYTES = 16_384

#: Given an error's text or None, and a result; to be called once, now or later.
Answer = Callable[["str | None", Any], None]
#: A method of the control socket: params and where the answer goes.
Method = Callable[["list[Any]", Answer], None]


class ControlServer:
    """Listens on the control socket and calls ``methods``."""

    def __init__(self, loop: Loop, listener: Listener, methods: Mapping[str, Method]) -> None:
        self._loop = loop
        self.listener = listener
        self._methods = methods
        self._clients: set[_Client] = set()
        listener.socket.setblocking(False)
        loop.watch(listener.socket, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self.listener.socket.accept()
        except OSError:
            return
        if len(self._clients) >= MOST_CLIENTS:
            sock.close()
            return
        self._clients.add(_Client(self._loop, sock, self._methods, self._clients.discard))

    def stop_listening(self, *, is_last: bool) -> None:
        """Close the listener; with ``is_last`` the path goes, too. Clients stay."""
        self._loop.unwatch(self.listener.socket)
        self.listener.close(is_last=is_last)

    def close(self) -> None:
        """Close all clients, after a last try to send them what is due."""
        for client in list(self._clients):
            client.close()

    def close_in_child(self) -> None:
        """In a forked child: close the copies, touch nothing else."""
        self.listener.socket.close()
        for client in self._clients:
            client.socket.close()


class _Client:
    """One connection to the control socket."""

    def __init__(
        self, loop: Loop, sock: socket.socket, methods: Mapping[str, Method], on_close: Callable[[_Client], None]
    ) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._loop = loop
        self._methods = methods
        self._on_close = on_close
        self._decoder = StreamDecoder(Bounds(_MESSAGE_BYTES, _MESSAGE_DEPTH))
        self._unsent = b""
        self._is_closed = False
        loop.watch(sock, self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
            if not data:
                self.close()
                return
            for message in self._decoder.feed(data):
                if isinstance(message, Request):
                    self._call(message)
        except BlockingIOError:
            return
        except (OSError, ProtocolError) as error:
            logger.info("Closing a connection to the control socket: %s", escaped(str(error)))
            self.close()

    def _call(self, request: Request) -> None:
        method = self._methods.get(request.method)
        if method is None:
            self._send(request.msgid, f"'{request.method}' method not found", None)
            return
        try:
            method(request.params, lambda error, result: self._send(request.msgid, error, result))
        except (TypeError, ValueError) as error:
            self._send(request.msgid, f"ArgumentError: {error}", None)
        except Exception as error:  # a fault of ours must not take the master and its cluster down
            logger.exception("The control method %s failed", escaped(request.method))
            self._send(request.msgid, f"{type(error).__name__}: {error}", None)

    def _send(self, msgid: int, error: str | None, result: Any) -> None:
        if not self._is_closed:
            self._unsent += pack_response(msgid, error, result)
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
        if len(self._unsent) > _UNSENT_BYTES:  # it asks and never reads
            self.close()
        if not self._is_closed:
            self._loop.watch_writing(self.socket, self._flush if self._unsent else None)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._loop.unwatch(self.socket)
            self.socket.close()
            self._on_close(self)
