"""Every way to call a server once, by name: what one of them has to do with bad input, all have."""

from __future__ import annotations

import asyncio
from typing import Any

from rpccluster.client import Client, Pool, aio

__all__ = ["FACES", "call_by"]


def _by_future(address: str, method: str, params: tuple[Any, ...], options: dict[str, Any]) -> Any:
    with Client(address, **options) as client:
        return client.call_async(method, *params).result(30)


def _by_batch(address: str, method: str, params: tuple[Any, ...], options: dict[str, Any]) -> Any:
    with Client(address, **options) as client:
        with client.batch() as batch:
            batch.call(method, *params)
        return batch.results()[0]


def _by_call(address: str, method: str, params: tuple[Any, ...], options: dict[str, Any]) -> Any:
    with Client(address, **options) as client:
        return client.call(method, *params)


def _by_pool(address: str, method: str, params: tuple[Any, ...], options: dict[str, Any]) -> Any:
    with Pool([address], **options) as pool:
        return pool.call(method, *params)


def _by_aio(address: str, method: str, params: tuple[Any, ...], options: dict[str, Any]) -> Any:
    async def main() -> Any:
        async with aio.Client(address, **options) as client:
            return await client.call(method, *params)

    return asyncio.run(main())


def _by_aio_batch(address: str, method: str, params: tuple[Any, ...], options: dict[str, Any]) -> Any:
    async def main() -> Any:
        async with aio.Client(address, **options) as client:
            async with client.batch() as batch:
                batch.call(method, *params)
            return batch.results()[0]

    return asyncio.run(main())


_WAYS = {
    "call": _by_call,
    "future": _by_future,
    "batch": _by_batch,
    "pool": _by_pool,
    "aio": _by_aio,
    "aio batch": _by_aio_batch,
}
FACES = list(_WAYS)


def call_by(face: str, address: str, method: str, *params: Any, **options: Any) -> Any:
    """The result of one call by that face; ``options`` are the client's. Raises what the face raises."""
    return _WAYS[face](address, method, params, options)
