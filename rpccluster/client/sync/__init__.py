"""The client for native threads and gevent's greenlets. Public as ``rpccluster.Client`` and ``rpccluster.Pool``."""

from __future__ import annotations

from rpccluster.client.sync.client import Client
from rpccluster.client.sync.pool import Pool
from rpccluster.client.sync.queue import Item, Queue

__all__ = ["Client", "Item", "Pool", "Queue"]
