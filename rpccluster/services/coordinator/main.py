"""The coordinator's process, from the loading of its code on. Runs in the forked child."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rpccluster.child.assignment import Assignment, RPCPart, Run
from rpccluster.child.settings import ServiceSettings
from rpccluster.worker import main

if TYPE_CHECKING:  # imported after gevent has patched
    from rpccluster.worker.server import Served

__all__ = ["load"]


def load(assignment: Assignment[RPCPart]) -> Run:
    """Patch the process, import its modules and read the password. Returns the function that runs the coordinator.

    The user that it becomes need not be able to read the file. Raises OSError.
    """
    path = assignment.part.own.password_file
    password = ""
    if path:
        with open(path, encoding="utf-8") as file:
            password = file.readline().strip()
    return main.load(assignment, partial(_make, password))


def _make(password: str, assignment: Assignment[RPCPart], settings: ServiceSettings) -> Served:
    from rpccluster.services.coordinator.inside import Inside
    from rpccluster.worker.server import Served

    inside = Inside(assignment, password)
    return Served(inside.service, inside=inside)
