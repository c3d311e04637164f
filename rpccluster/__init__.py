"""rpccluster: an application server for MessagePack-RPC, and the client to call it.

Names are loaded when first used: importing the package costs next to nothing. The errors, which import nothing, are
there at once, and are named where they are defined.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rpccluster import errors
from rpccluster.errors import *  # noqa: F403
from rpccluster.version import __version__

if TYPE_CHECKING:
    from rpccluster.client import Client, Pool, Queue, aio
    from rpccluster.client.sync.queue_inside import queue
    from rpccluster.leading.leadership import leadership
    from rpccluster.live_settings import Setting, settings
    from rpccluster.plugin.handle import Plugin
    from rpccluster.pools.cluster.pool import pool
    from rpccluster.pools.program.task_pool import TaskPool
    from rpccluster.service import Later, Service, current_call, rpc
    from rpccluster.tasks.current import task

__all__ = ["Client", "Later", "Plugin", "Pool", "Queue", "Service", "Setting", "TaskPool", "__version__", "aio"]
__all__ += ["current_call", "leadership", "pool", "queue", "rpc", "settings", "task"]
__all__ += errors.__all__

_HOMES = {
    "Client": "rpccluster.client",
    "Later": "rpccluster.service",
    "Plugin": "rpccluster.plugin.handle",
    "Pool": "rpccluster.client",
    "Queue": "rpccluster.client",
    "Service": "rpccluster.service",
    "Setting": "rpccluster.live_settings",
    "TaskPool": "rpccluster.pools.program.task_pool",
    "pool": "rpccluster.pools.cluster.pool",
    "queue": "rpccluster.client.sync.queue_inside",
    "task": "rpccluster.tasks.current",
    "aio": "rpccluster.client.aio",
    "current_call": "rpccluster.service",
    "leadership": "rpccluster.leading.leadership",
    "rpc": "rpccluster.service",
    "settings": "rpccluster.live_settings",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    globals()[name] = value = home if name == "aio" else getattr(home, name)
    return value
