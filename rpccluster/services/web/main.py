"""The process of the page, from the loading of its code on. Runs in the forked child."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpccluster.child.assignment import Assignment, RPCPart, Run
from rpccluster.child.settings import ServiceSettings
from rpccluster.worker import main

if TYPE_CHECKING:  # imported after gevent has patched
    from rpccluster.worker.parts import Served

__all__ = ["load"]


def load(assignment: Assignment[RPCPart]) -> Run:
    """Patch the process and import its modules. Returns the function that runs it."""
    return main.load(assignment, _make)


def _make(assignment: Assignment[RPCPart], settings: ServiceSettings) -> Served:
    from rpccluster.services.web.inside import Inside
    from rpccluster.worker.parts import Served

    inside = Inside(assignment)
    return Served(inside.service, inside=inside, listens=True)
