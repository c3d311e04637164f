"""How many connections a worker may have, as far as its descriptors allow. Runs in the worker."""

from __future__ import annotations

import resource

from rpccluster import system
from rpccluster.ipc.scoreboard import Cell, Row
from rpccluster.worker.live_options import LiveOptions

__all__ = ["tell_limit"]

RESERVED_DESCRIPTORS = 64  # for the service, the loop, the log: connections never take these


def tell_limit(row: Row, options: LiveOptions) -> None:
    """Tell it in the worker's row: its own acceptor, its siblings' and the master look there."""
    system.make_room_for(options.worker_connections)
    row[Cell.CONNECTION_LIMIT] = min(options.worker_connections, _room_for_connections())


def _room_for_connections() -> int:
    """How many leave descriptors for everything else; where there are few, half of them."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, descriptors - min(RESERVED_DESCRIPTORS, descriptors // 2))
