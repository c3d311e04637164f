"""The coordinator's process, from the loading of its code on. Runs in the forked child."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rpccluster.child.assignment import Assignment, RPCPart, Run
from rpccluster.child.settings import ServiceSettings
from rpccluster.worker import main

if TYPE_CHECKING:  # imported after gevent has patched
    from rpccluster.worker.parts import Served

__all__ = ["load"]

#: What is imported by then; gevent imports the last two when a name is looked up first.
_FOR_ZOOKEEPER = (
    "kazoo.handlers.gevent",
    "rpccluster.leading.zookeeper_store",
    "gevent.resolver.thread",
    "encodings.idna",
)


def load(assignment: Assignment[RPCPart]) -> Run:
    """Patch the process and import its modules. Returns the function that runs the coordinator. Raises OSError.

    The user that it becomes need not be able to read Python's files.
    """
    run = main.load(assignment, _make)
    if not assignment.part.own.engine.is_file:
        for name in _FOR_ZOOKEEPER:
            importlib.import_module(name)
    return run


def _make(assignment: Assignment[RPCPart], settings: ServiceSettings) -> Served:
    from rpccluster.services.coordinator.inside import Inside
    from rpccluster.worker.parts import Served

    inside = Inside(assignment)
    return Served(inside.service, inside=inside)
