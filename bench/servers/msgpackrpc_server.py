"""msgpack-rpc-python's own server. Runs in an environment of that library's own: nothing newer is imported here.

A program of its own. The library can only listen on every interface; here it is told the loopback.
"""

from __future__ import annotations

import msgpackrpc
from msgpackrpc.transport import tcp


class Methods:
    """What is called."""

    def sum(self, *numbers):  # type: ignore[no-untyped-def]
        return sum(numbers)

    def echo(self, value):  # type: ignore[no-untyped-def]
        return value


class LoopbackTransport(tcp.ServerTransport):
    """The library's transport, listening on any port of the loopback."""

    def listen(self, server):  # type: ignore[no-untyped-def]
        self._server = server
        self._mp_server = tcp.MessagePackServer(self, io_loop=server._loop._ioloop, encodings=self._encodings)
        self._mp_server.listen(0, "127.0.0.1")
        (listener,) = self._mp_server._sockets.values()
        print(f"Listening at: tcp://127.0.0.1:{listener.getsockname()[1]}", flush=True)


class builder:
    """What the library takes for its transport module."""

    ServerTransport = LoopbackTransport


if __name__ == "__main__":
    server = msgpackrpc.Server(Methods(), builder=builder)
    server.listen(msgpackrpc.Address("127.0.0.1", 0))
    server.start()
