"""Imports modules in the master for all its children, because a boot takes CPU from the children that serve: 45 ms.

No module here uses gevent, or creates a lock at its import, which gevent would find unpatched. Runs in the master.
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
    "rpccluster.plugin.main",
    "rpccluster.protocol.shared",
    "rpccluster.tasks.main",
    "rpccluster.worker.accepting.lock",
    "rpccluster.worker.accepting.turn",
    "rpccluster.worker.connections.context",
    "rpccluster.worker.connections.given",
    "rpccluster.worker.connections.handover_channel",
    "rpccluster.worker.connections.pauses",
    "rpccluster.worker.connections.states",
    "rpccluster.worker.lifecycle",
    "rpccluster.worker.limits",
    "rpccluster.worker.process.freed_memory",
    "rpccluster.worker.process.taken_greenlets",
    "rpccluster.worker.service.later",
    "rpccluster.worker.service.loading",
    "rpccluster.worker.service.registry",
)
_FOR_QUEUES = ("rpccluster.queues.sqlite",)  # 6 ms, for which a keeper that was killed is back earlier

_FOR_TASKS = (
    "faulthandler",
    "gc",
    "locale",
    "pickle",
    "rpccluster.child.cells",
    "rpccluster.tasks.main",
    "setproctitle",
)


def preload_tasks() -> None:
    """Import what task processes need, in a master that has no others."""
    for name in _FOR_TASKS:
        importlib.import_module(name)


def preload(*, has_queues: bool) -> None:
    """Import all these modules; ``has_queues``: there is a keeper, with a file."""
    for name in (*_PYTHONS_OWN, *_OURS, *(_FOR_QUEUES if has_queues else ())):
        importlib.import_module(name)
    platform.uname()  # its result is cached
