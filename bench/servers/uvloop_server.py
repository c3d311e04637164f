"""A bare uvloop protocol with msgpack: about what an event loop in Python can do. Its methods cannot block.

A program of its own. It does no more than a peer must to be fair: it reads no client that does not read it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Callable

import msgpack
import uvloop

METHODS: dict[str, Callable[..., Any]] = {"sum": lambda *numbers: sum(numbers), "echo": lambda value: value}


class Connection(asyncio.Protocol):
    """One client: an Unpacker, and one write for all the replies to what one read brought."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=1 << 24)
        self.pack = msgpack.Packer().pack

    def data_received(self, data: bytes) -> None:
        self.unpacker.feed(data)
        replies = []
        for _, msgid, method, params in self.unpacker:
            try:
                reply = [1, msgid, None, METHODS[method](*params)]
            except Exception as error:
                reply = [1, msgid, f"{type(error).__name__}: {error}", None]
            replies.append(self.pack(reply))
        if replies:
            self.transport.write(b"".join(replies))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


async def serve() -> None:
    """Listen on any port of the loopback, for ever."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=2048)
    host, port = server.sockets[0].getsockname()
    print(f"Listening at: tcp://{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(serve())
