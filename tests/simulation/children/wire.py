"""What callers, made-up workers and masters say over a connection, and whose connection it is. Data and names alone."""

from __future__ import annotations

import os
import socket
import struct

from rpccluster.ipc.channel import Channel

__all__ = [
    "ANSWERED",
    "CALL",
    "CANCEL",
    "CANCELLED",
    "GAVE_UP",
    "LOST",
    "REPLY",
    "client_of",
    "client_of_copy",
    "copy_of",
    "socket_of",
]

ANSWERED, LOST, GAVE_UP, CANCELLED = b"+-!x"  # how a call is answered: done, its worker has died, its time is over, …
CALL = struct.Struct(">I")
CANCEL = 1 << 31  # beside the number of a call: its caller does not want it any more
REPLY = struct.Struct(">IB")


def client_of(sock: socket.socket) -> int:
    """Return the number of the client to whom a connection leads, by the name that the client has bound."""
    return int(sock.getpeername().rpartition(b"-")[2])


def client_of_copy(descriptor: int) -> int:
    """Return the number of the client to whom the connection leads of which ``descriptor`` is a copy."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return client_of(sock)


def socket_of(descriptor: int) -> socket.socket:
    """Return a socket with ``descriptor`` that does not block."""
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    return sock


def copy_of(channel: Channel) -> Channel:
    """Copy one end of a channel, as a fork does."""
    return Channel(socket.socket(fileno=os.dup(channel.fileno())))
