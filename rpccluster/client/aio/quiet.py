"""Keeps asyncio's sends from raising SIGPIPE, even if the program has set it to its default.

Otherwise a send to a server that has hung up would end the program. asyncio's transports have no flag for that, so the
socket that they have made becomes one whose sends carry MSG_NOSIGNAL. uvloop sends by itself, in C, and is left alone.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from rpccluster.client.threads.sockets import MSG_NOSIGNAL

__all__ = ["keep_from_sigpipe"]


class _QuietSocket(socket.socket):
    """A socket whose sends carry MSG_NOSIGNAL."""

    __slots__ = ()  # or no socket could become one

    def send(self, data: Any, flags: int = 0, /, *, _send: Any = socket.socket.send) -> int:
        sent: int = _send(self, data, flags | MSG_NOSIGNAL)  # each call is sent by this: super() would cost a tenth
        return sent

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, /, *address: Any) -> int:
        return super().sendmsg(buffers, ancdata, flags | MSG_NOSIGNAL, *address)


def keep_from_sigpipe(transport: asyncio.BaseTransport) -> None:
    """Let no send of ``transport`` raise SIGPIPE."""
    sock = getattr(transport.get_extra_info("socket"), "_sock", None)
    if type(sock) is socket.socket:
        sock.__class__ = _QuietSocket  # the same memory: it has no slots
