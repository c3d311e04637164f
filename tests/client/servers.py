"""Small servers for the client's tests: threads over plain sockets, well behaved or not.

Each owns its listener and its connections, and ends them. What a real cluster does is tested elsewhere.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import msgpack

from rpccluster.protocol.closing import CLOSING
from rpccluster.protocol.codec import make_packer, make_unpacker

__all__ = ["Server", "answer", "reply", "requests", "serve"]

Handler = Callable[[socket.socket], None]


class Server:
    """Calls ``handle`` with each connection, in a thread of its own."""

    def __init__(self, listener: socket.socket, handle: Handler) -> None:
        self.connections = 0
        self.name: Any = listener.getsockname()
        self._listener = listener
        self._handle = handle
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """The same as a client takes it."""
        name = self.name
        if isinstance(name, str):
            return f"unix://{name}"
        return f"tcp://[{name[0]}]:{name[1]}" if ":" in name[0] else f"tcp://{name[0]}:{name[1]}"

    def cut(self) -> None:
        """End every connection."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def close(self) -> None:
        """Stop listening, and end every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self._sockets.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._handle(sock)


@contextlib.contextmanager
def serve(handle: Handler | None = None, *, at: str | tuple[str, int] | Path = ("127.0.0.1", 0)) -> Iterator[Server]:
    """A server for the length of a ``with`` block; without ``handle`` it is `answer`."""
    if isinstance(at, Path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(at))
        listener.listen(64)
    else:
        family = socket.AF_INET6 if ":" in at[0] else socket.AF_INET
        listener = socket.create_server(at, family=family, backlog=64)
    server = Server(listener, handle or answer)
    try:
        yield server
    finally:
        server.close()


def requests(sock: socket.socket) -> Iterator[list[Any]]:
    """The messages that come, until the end of the stream; but for what a client asks of its own accord.

    That is the wish to hear of the connection's end, and, along with the first call, whether deadlines are offered.
    """
    unpacker = make_unpacker(2**28)
    has_called = has_asked = False
    while True:
        data = sock.recv(65536)
        if not data:
            return
        unpacker.feed(data)
        for message in unpacker:
            if message[0] == 0 and message[2] == CLOSING:
                continue
            if message[0] == 0 and message[2] == "rpc.discover" and has_called and not has_asked:
                has_asked = True
                continue
            has_called = True
            yield message


def reply(msgid: int, result: Any = None, error: Any = None) -> bytes:
    """A reply's bytes."""
    return make_packer().pack([1, msgid, error, result])  # type: ignore[no-any-return]


def answer(sock: socket.socket) -> None:
    """Answer each request in turn; ``sleep`` and ``linger`` answer from a thread, when their time has come."""
    lock = threading.Lock()
    for message in requests(sock):
        if message[0] != 0:
            continue
        _, msgid, method, params = message
        if method == "die":
            return
        if method in ("sleep", "linger"):
            threading.Thread(target=_answer_late, args=(sock, lock, msgid, *params), daemon=True).start()
            continue
        with lock:
            sock.sendall(_outcome(msgid, method, params))


def _answer_late(sock: socket.socket, lock: threading.Lock, msgid: int, seconds: float, result: Any = None) -> None:
    time.sleep(seconds)
    with contextlib.suppress(OSError), lock:
        sock.sendall(reply(msgid, result))


def _outcome(msgid: int, method: str, params: list[Any]) -> bytes:
    if method == "echo":
        return reply(msgid, params[0])
    if method == "sum":
        return reply(msgid, sum(params))
    if method == "fail":
        return reply(msgid, error=params[0])
    if method == "ext":
        return reply(msgid, msgpack.ExtType(5, b"x"))
    return reply(msgid, error=f"'{method}' method not found")
