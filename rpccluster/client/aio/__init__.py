"""The client on asyncio: the names of `rpccluster.client`, with coroutines. Public as ``rpccluster.aio``."""

from __future__ import annotations

from rpccluster.client.aio.client import Client
from rpccluster.client.aio.pool import Pool
from rpccluster.client.aio.queue import Item, Queue

__all__ = ["Client", "Item", "Pool", "Queue"]
