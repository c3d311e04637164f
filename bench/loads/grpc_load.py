"""Load for grpcio, by its own asyncio client: a channel a connection, a task for each call in flight."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc

from bench.loads.closed_loop import Options, Tally, parse, say_ready, tell
from bench.servers.grpc_messages import METHODS, SERVICE

CALLS: dict[str, tuple[dict[str, Any], Any]] = {
    "sum": ({"left": 1, "right": 2}, 3),
    "echo": ({"value": b"x" * 1024}, b"x" * 1024),
}
APART = [("grpc.use_local_subchannel_pool", 1)]  # else channels to one address share a connection


async def call_until(function: Any, method: str, tally: Tally, end: float) -> None:
    """Call again and again, one call at a time."""
    fields, expected = CALLS[method]
    request_class = METHODS[method.capitalize()][0]
    called_at = time.monotonic()
    while called_at < end:
        try:
            reply = await function(request_class(**fields))
            tally.count(called_at, reply.result, expected)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:  # now and then it cancels a call by itself: not counted
                raise
        called_at = time.monotonic()


def function_of(channel: Any, method: str) -> Any:
    request_class, reply_class = METHODS[method.capitalize()]
    return channel.unary_unary(
        f"/{SERVICE}/{method.capitalize()}",
        request_serializer=request_class.SerializeToString,
        response_deserializer=reply_class.FromString,
    )


async def main(options: Options) -> None:
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{options.port}", options=APART) for _ in range(options.connections)
    ]
    functions = [function_of(channel, options.method) for channel in channels]
    fields, expected = CALLS[options.method]
    for function in functions:
        reply = await function(METHODS[options.method.capitalize()][0](**fields))
        Tally().count(0, reply.result, expected)
    tally = say_ready()
    end = tally.started_at + options.seconds
    tasks = [call_until(function, options.method, tally, end) for function in functions for _ in range(options.slots)]
    await asyncio.gather(*tasks)
    tell(tally, options.method)


if __name__ == "__main__":
    asyncio.run(main(parse()))
