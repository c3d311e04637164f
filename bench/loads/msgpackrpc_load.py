"""msgpack-rpc-python's own client: ``call``, and ``call_async`` for calls that are made together.

Runs in an environment of that library's own: nothing newer is imported here.
"""

from __future__ import annotations

import msgpackrpc

from bench.loads.closed_loop import parse, run


def call_all(count, method, *params):  # type: ignore[no-untyped-def]
    futures = [client.call_async(method, *params) for _ in range(count)]
    return [future.get() for future in futures]


if __name__ == "__main__":
    options = parse()
    client = msgpackrpc.Client(msgpackrpc.Address("127.0.0.1", options.port), unpack_encoding="utf-8")
    run(options, client.call, call_all)
