"""The number of connections that a worker may have, within its descriptors. Runs in the worker."""

from __future__ import annotations

import resource

from rpccluster import system
from rpccluster.ipc.scoreboard import Cell, Row
from rpccluster.worker.live_options import LiveOptions

__all__ = ["tell_limit"]

RESERVED_DESCRIPTORS = 64  # for the service, the loop, the log: connections never take these


def tell_limit(row: Row, options: LiveOptions) -> None:
    """Write the limit into the worker's row, for its own acceptor, its siblings and the master."""
    system.make_room_for(options.worker_connections)
    row[Cell.CONNECTION_LIMIT] = min(options.worker_connections, _room_for_connections())


def _room_for_connections() -> int:
    """Return how many connections leave descriptors for everything else; at least half of all."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, descriptors - min(RESERVED_DESCRIPTORS, descriptors // 2))
