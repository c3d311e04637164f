"""What the master imports on its children's behalf before it forks them: a boot takes CPU from those who serve.

Nothing here knows gevent, nor makes a lock when it is imported: gevent would find that unpatched. Runs in the master.
"""

from __future__ import annotations

import importlib
import platform

__all__ = ["preload"]

_PYTHONS_OWN = (
    "calendar",
    "email.message",
    "faulthandler",
    "gc",
    "grp",
    "importlib.metadata",
    "locale",
    "pickle",
    "pprint",
    "pwd",
    "queue",
    "subprocess",
    "zipfile",
)
_OURS = (
    "rpccluster.child.cells",
    "rpccluster.demo",
    "rpccluster.protocol.shared",
    "rpccluster.worker.accepting.lock",
    "rpccluster.worker.connections.context",
    "rpccluster.worker.connections.pauses",
    "rpccluster.worker.connections.states",
    "rpccluster.worker.lifecycle",
    "rpccluster.worker.limits",
    "rpccluster.worker.process.freed_memory",
    "rpccluster.worker.service.loading",
    "rpccluster.worker.service.registry",
    "rpccluster.worker.taken_greenlets",
)


def preload() -> None:
    """Import it all."""
    for name in (*_PYTHONS_OWN, *_OURS):
        importlib.import_module(name)
    platform.uname()  # which is kept
