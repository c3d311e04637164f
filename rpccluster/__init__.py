"""rpccluster: an application server for MessagePack-RPC, and the client to call it.

Names are loaded when first used: importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rpccluster.version import __version__

if TYPE_CHECKING:
    from rpccluster.client import Client, Pool, aio
    from rpccluster.errors import (
        AddressError,
        ArgumentError,
        CallError,
        CallTimeout,
        ConnectFailed,
        ConnectionLost,
        Lost,
        NoMethodError,
        NotSent,
        ProtocolError,
        RemoteError,
        RPCClusterError,
        TooManyWaiting,
    )
    from rpccluster.service import Later, Service, rpc

_HOMES = {
    "Client": "rpccluster.client",
    "Pool": "rpccluster.client",
    "Later": "rpccluster.service",
    "Service": "rpccluster.service",
    "rpc": "rpccluster.service",
    **dict.fromkeys(
        (
            "AddressError",
            "ArgumentError",
            "CallError",
            "CallTimeout",
            "ConnectFailed",
            "ConnectionLost",
            "Lost",
            "NoMethodError",
            "NotSent",
            "ProtocolError",
            "RPCClusterError",
            "RemoteError",
            "TooManyWaiting",
        ),
        "rpccluster.errors",
    ),
}

__all__ = [
    "AddressError",
    "ArgumentError",
    "CallError",
    "CallTimeout",
    "Client",
    "ConnectFailed",
    "ConnectionLost",
    "Later",
    "Lost",
    "NoMethodError",
    "NotSent",
    "Pool",
    "ProtocolError",
    "RPCClusterError",
    "RemoteError",
    "Service",
    "TooManyWaiting",
    "__version__",
    "aio",
    "rpc",
]


def _load(name: str) -> Any:
    if name == "aio":
        return importlib.import_module("rpccluster.client.aio")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = _load(name)
    globals()[name] = value
    return value
