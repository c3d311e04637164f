"""A proxy on loopback between a client and a server, which harms connections as told.

Owns its listener and two threads for each connection, and ends them. Runs in the test's process.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Callable

__all__ = ["UNHARMED", "Harm", "Proxy"]


@dataclass(frozen=True)
class Harm:
    """What happens to one connection. Counts are in bytes, from the connection's beginning."""

    cut_request_after: int | None = None  # then both sides are closed
    cut_reply_after: int | None = None
    half_close_request_after: int | None = None  # then the server sees the end, and replies still pass
    half_close_reply_after: int | None = None
    piece: int = 65536  # so many bytes are passed on at once, at most
    delay_seconds: float = 0.0  # before each piece
    reset: bool = False  # cut by a reset rather than by an orderly end


UNHARMED = Harm()


class Proxy:
    """Listens at once, at ``address``. ``harm`` is asked for each connection, by its number from 0."""

    def __init__(self, target: str | tuple[str, int], harm: Callable[[int], Harm] = lambda _: UNHARMED) -> None:
        self.connections = 0
        self._target = target
        self._harm = harm
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def address(self) -> str:
        """Where to connect."""
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut every connection and stop listening."""
        _shutdown(self._listener)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)
        for sock in self._sockets:
            sock.close()

    def cut(self) -> None:
        """Cut every connection."""
        for sock in self._sockets:
            _shutdown(sock)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                harm = self._harm(self.connections)
                self.connections += 1
                try:
                    server = _connect(self._target)
                except OSError:
                    client.close()
                    continue
                self._sockets += [client, server]
                is_cut = threading.Event()
                ends = (harm.cut_request_after, harm.half_close_request_after)
                self._start(self._pass_on, client, server, harm, is_cut, *ends)
                ends = (harm.cut_reply_after, harm.half_close_reply_after)
                self._start(self._pass_on, server, client, harm, is_cut, *ends)

    def _pass_on(
        self,
        source: socket.socket,
        sink: socket.socket,
        harm: Harm,
        is_cut: threading.Event,
        cut: int | None,
        half_close: int | None,
    ) -> None:
        end = cut if half_close is None else half_close
        passed = 0
        with contextlib.suppress(OSError):
            while passed != end:
                data = source.recv(harm.piece if end is None else min(harm.piece, end - passed))
                if is_cut.is_set():
                    return
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                time.sleep(harm.delay_seconds)
                sink.sendall(data)
                passed += len(data)
            if half_close is not None:
                sink.shutdown(socket.SHUT_WR)
                return
        is_cut.set()
        for sock in (source, sink):
            _reset(sock) if harm.reset else _shutdown(sock)


def _connect(target: str | tuple[str, int]) -> socket.socket:
    if isinstance(target, tuple):
        return socket.create_connection(target, 10)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(target)
    return sock


def _shutdown(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RD)  # wakes the thread that receives: until it lets go, close() does nothing
    with contextlib.suppress(OSError):
        sock.close()
