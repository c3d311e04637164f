"""The client of MessagePack-RPC services: what other services hold in their hands. See docs/client.md."""

from __future__ import annotations

from rpccluster.client.sync import Client, Pool, Queue

__all__ = ["Client", "Pool", "Queue"]
