"""A bare protocol of asyncio, a future for each call: what a client on asyncio can reach at best.

Msgids, and a look whether a reply is an error, it cannot do without either.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgpack

from bench.loads.aio_load import run
from bench.loads.closed_loop import Options, parse


class Bare(asyncio.Protocol):
    """A connection, and nothing else."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pack = msgpack.Packer().pack
        self._unpacker = msgpack.Unpacker()
        self._msgids = itertools.count()
        self._futures: dict[int, asyncio.Future[Any]] = {}

    def connection_made(self, transport: Any) -> None:
        self._write = transport.write

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        for _, msgid, error, result in self._unpacker:
            future = self._futures.pop(msgid)
            if error is not None:
                future.set_exception(ValueError(f"found the error {error}, expected none"))
            else:
                future.set_result(result)

    def call(self, method: str, *params: Any) -> asyncio.Future[Any]:
        msgid = next(self._msgids)
        future = self._futures[msgid] = self._loop.create_future()
        self._write(self._pack((0, msgid, method, params)))
        return future


async def main(options: Options) -> None:
    loop = asyncio.get_running_loop()
    _, bare = await loop.create_connection(Bare, "127.0.0.1", options.port)
    await run(options, bare.call)


if __name__ == "__main__":
    asyncio.run(main(parse()))
