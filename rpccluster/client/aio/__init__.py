"""The client on asyncio: the same names as in `rpccluster.client`, with coroutines. Public as ``rpccluster.aio``."""

from __future__ import annotations

from rpccluster.client.aio.client import Client

__all__ = ["Client"]
