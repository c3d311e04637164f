"""What the dispatcher serves: the methods by which submitters give tasks and take outcomes. Runs in the dispatcher."""

from __future__ import annotations

from rpccluster.service import rpc

__all__ = ["Dispatcher"]


class Dispatcher:
    """The methods of the dispatcher."""

    @rpc(name="pool.list")
    def list(self) -> list[str]:
        return []
