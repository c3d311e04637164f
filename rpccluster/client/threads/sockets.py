"""The socket options and flags of both faces, and the error if no address could be reached."""

from __future__ import annotations

import socket
from collections.abc import Iterable

__all__ = ["MSG_NOSIGNAL", "NEXT_SECONDS", "NOW", "adjust", "all_failed"]

#: How long one address may say nothing until the next is tried beside it: the RFC's "Connection Attempt Delay".
NEXT_SECONDS = 0.25
#: The flag of a send that raises no SIGPIPE.
MSG_NOSIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0x4000)  # PyPy 3.9 lacks the name
#: The flags of a send that never waits, and never raises SIGPIPE.
NOW = socket.MSG_DONTWAIT | MSG_NOSIGNAL

_IDLE_SECONDS = 15  # a silent peer is asked by the kernel whether it lives,
_INTERVAL_SECONDS = 5  # so often,
_USER_TIMEOUT_MS = 60_000  # and given up if it has acknowledged nothing, or taken nothing in, for so long: tcp(7)


def adjust(sock: socket.socket) -> None:
    """Set the options of a connected TCP socket. Raises OSError for one that is connected to itself."""
    if sock.getsockname() == sock.getpeername():  # a free local port may be chosen that is the very one asked for
        raise ConnectionRefusedError("connected to itself: nothing listens there")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", 18), _USER_TIMEOUT_MS)


def all_failed(errors: Iterable[OSError]) -> OSError:
    """Make the error when every address has failed: the only error, or the texts of all."""
    different = {str(error): error for error in errors}
    return next(iter(different.values())) if len(different) == 1 else OSError("; ".join(different))
