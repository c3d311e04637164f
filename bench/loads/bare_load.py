"""A blocking socket, its messages packed and unpacked by hand: what a client on plain sockets can reach at best.

It does what a client cannot do without: msgids, and a look whether the reply is the call's own and no error.
"""

from __future__ import annotations

import itertools
import socket
from typing import Any

import msgpack

from bench.loads.closed_loop import parse, run

RECEIVE_BYTES = 1 << 16


class Bare:
    """A connection, and nothing else."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pack = msgpack.Packer().pack
        self._msgids = itertools.count()

    def call(self, method: str, *params: Any) -> Any:
        msgid = next(self._msgids)
        self._socket.sendall(self._pack((0, msgid, method, params)))
        _, replied, error, result = msgpack.unpackb(self._socket.recv(RECEIVE_BYTES))
        if replied != msgid or error is not None:
            raise ValueError(f"found a reply to {replied} with the error {error}, expected one to {msgid} without")
        return result

    def call_all(self, count: int, method: str, *params: Any) -> list[Any]:
        msgids = [next(self._msgids) for _ in range(count)]
        self._socket.sendall(b"".join([self._pack((0, msgid, method, params)) for msgid in msgids]))
        unpacker = msgpack.Unpacker()
        results: dict[int, Any] = {}
        while len(results) < count:
            unpacker.feed(self._socket.recv(RECEIVE_BYTES))
            for _, msgid, error, result in unpacker:
                if error is not None:
                    raise ValueError(f"found the error {error}, expected none")
                results[msgid] = result
        return [results[msgid] for msgid in msgids]


if __name__ == "__main__":
    options = parse()
    bare = Bare(options.port)
    run(options, bare.call, bare.call_all)
