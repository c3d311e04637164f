"""What the engine of the page's process serves, though it listens nowhere; and the end of the process. Runs there."""

from __future__ import annotations

from typing import Callable

from rpccluster.service import Service, WorkerInfo, rpc

__all__ = ["Page"]


class Page(Service):
    """The service of an engine that gets no connection; every service has a method."""

    def __init__(self, connections: Callable[[], int], finish: Callable[[], object]) -> None:
        """``connections`` counts those over HTTP; ``finish`` waits until all that was asked is answered."""
        self._connections = connections
        self._finish = finish

    @rpc(name="web.connections")
    def connections(self) -> int:
        """Return the number of connections over HTTP."""
        return self._connections()

    def worker_stopping(self, worker: WorkerInfo) -> None:
        """Answer what was asked before the end."""
        self._finish()
