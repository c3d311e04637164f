"""`rpccluster.Client`: ``call``, and ``batch()`` for calls that are made together."""

from __future__ import annotations

from typing import Any

from bench.loads.closed_loop import parse, run
from rpccluster import Client


def call_all(count: int, method: str, *params: Any) -> list[Any]:
    with client.batch() as batch:
        for _ in range(count):
            batch.call(method, *params)
    return batch.results()


if __name__ == "__main__":
    options = parse()
    with Client(f"127.0.0.1:{options.port}", timeout=None) as client:
        run(options, client.call, call_all)
