"""Imports modules in the master for all its children, because a boot takes CPU from the children that serve.

No module here uses gevent, or creates a lock at its import, which gevent would find unpatched; nor does any keep a
function that gevent replaces. So `ssl` is not among them, but the library that it loads is. Runs in the master.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
import sys

from rpccluster.child.entry_points import entry_points

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
_OF_GEVENT = ("_ssl", "contextvars", "zope.event", "zope.interface", "zope.interface.interfaces")  # what it imports
_OURS = (
    "rpccluster.child.cells",
    "rpccluster.demo",
    "rpccluster.plugin.main",
    "rpccluster.protocol.proxy_header",
    "rpccluster.protocol.shared",
    "rpccluster.tasks.main",
    "rpccluster.worker.access.access",
    "rpccluster.worker.accepting.connection_limit",
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
    "rpccluster.worker.service.call_errors",
    "rpccluster.worker.service.later",
    "rpccluster.worker.service.loading",
    "rpccluster.worker.service.pool_tasks",
    "rpccluster.worker.service.registry",
    "rpccluster.worker.service.tracing",
    "rpccluster.worker.tally",
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
    if sys.implementation.name == "cpython":  # PyPy's gevent needs others
        for name in _OF_GEVENT:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    entry_points()
    platform.uname()  # its result is cached
