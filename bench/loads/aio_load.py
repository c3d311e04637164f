"""A client on asyncio: `rpccluster.aio.Client`, or as a measure for it a bare protocol. A task for each slot.

``python -m bench.loads.aio_load`` is the client, ``python -m bench.loads.bare_aio_load`` the protocol.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.loads.closed_loop import CALLS, Options, Tally, parse, say_ready, tell
from rpccluster import aio

__all__ = ["run"]


async def _call_until(call: Callable[..., Awaitable[Any]], method: str, tally: Tally, end: float) -> None:
    """Call again and again, one call at a time."""
    params, expected = CALLS[method]
    called_at = time.monotonic()
    while called_at < end:
        tally.count(called_at, await call(method, *params), expected)
        called_at = time.monotonic()


async def run(options: Options, call: Callable[..., Awaitable[Any]]) -> None:
    """The whole load of a client on asyncio."""
    params, expected = CALLS[options.method]
    Tally().count(0, await call(options.method, *params), expected)
    tally = say_ready()
    end = tally.started_at + options.seconds
    await asyncio.gather(*(_call_until(call, options.method, tally, end) for _ in range(options.slots)))
    tell(tally, options.method)


async def main(options: Options) -> None:
    async with aio.Client(f"127.0.0.1:{options.port}", timeout=None) as client:
        await run(options, client.call)


if __name__ == "__main__":
    asyncio.run(main(parse()))
