"""The client for native threads and gevent's greenlets. Public as ``rpccluster.Client`` and ``rpccluster.Pool``."""

from __future__ import annotations

from rpccluster.client.sync.client import Client
from rpccluster.client.sync.pool import Pool

__all__ = ["Client", "Pool"]
