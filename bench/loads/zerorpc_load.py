"""Load for zerorpc, by its own client: one client a connection, a greenlet for each call in flight."""

from __future__ import annotations

import time
from typing import Any

import gevent
import zerorpc

from bench.loads.closed_loop import CALLS, Options, Tally, parse, say_ready, tell


def call_until(client: Any, method: str, tally: Tally, end: float) -> None:
    """Call again and again, one call at a time."""
    params, expected = CALLS[method]
    called_at = time.monotonic()
    while called_at < end:
        tally.count(called_at, client(method, *params), expected)
        called_at = time.monotonic()


def main(options: Options) -> None:
    clients = [zerorpc.Client(f"tcp://127.0.0.1:{options.port}") for _ in range(options.connections)]
    for client in clients:
        Tally().count(0, client(options.method, *CALLS[options.method][0]), CALLS[options.method][1])
    tally = say_ready()
    end = tally.started_at + options.seconds
    callers = [
        gevent.spawn(call_until, client, options.method, tally, end) for client in clients for _ in range(options.slots)
    ]
    gevent.joinall(callers, raise_error=True)
    tell(tally, options.method)


if __name__ == "__main__":
    main(parse())
