"""This project's own clients, with msgpack-rpc-python's server on the other side."""

from __future__ import annotations

import asyncio

import pytest

from rpccluster.client import Client, aio
from rpccluster.errors import NoMethodError, RemoteError


def test_this_projects_client_on_their_server(port: int) -> None:
    """`rpccluster.Client` and `aio.Client` call their server as well: results, errors, batches, futures, timeouts."""
    with Client(f"127.0.0.1:{port}", timeout=10) as client:
        assert (client.call("sum", 1, 2), client.call("hello")) == (3, "world")
        assert client.call("echo", ["é", {"a": 1}]) == ["é", {"a": 1}]
        for method, kind in (("raise_error", RemoteError), ("nope", NoMethodError)):
            with pytest.raises(kind):
                client.call(method)
        with client.batch() as batch:
            for number in range(100):
                batch.call("echo", number)
        assert batch.results() == list(range(100))
        assert [future.result(10) for future in [client.call_async("sum", n, 1) for n in range(9)]] == list(
            range(1, 10)
        )
        assert client.notify("hello") is None
        assert client.call("sum", 1, 2) == 3

    async def main() -> None:
        async with aio.Client(f"127.0.0.1:{port}", timeout=10) as client:
            assert await asyncio.gather(*(client.call("echo", number) for number in range(100))) == list(range(100))
            with pytest.raises(NoMethodError):
                await client.call("nope")

    asyncio.run(main())
