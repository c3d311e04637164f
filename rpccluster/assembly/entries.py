"""The entry to the code of each kind of child, in one list. Runs in a forked child.

Only the child imports its kind's code, so that the master never imports gevent.
"""

from __future__ import annotations

import contextlib
import importlib

from rpccluster.child.assignment import Assignment, Run
from rpccluster.system.processes.launch import enter

__all__ = ["ENTRIES", "load"]

#: The module of each kind. Its function ``load`` is a `rpccluster.child.assignment.Load`.
ENTRIES = {
    "coordinator": "rpccluster.services.coordinator.main",
    "dispatcher": "rpccluster.services.dispatcher.main",
    "keeper": "rpccluster.services.keeper.main",
    "plugin": "rpccluster.plugin.main",
    "rpc": "rpccluster.worker.main",
    "task": "rpccluster.tasks.main",
    "web": "rpccluster.services.web.main",
}


def load(start_folder: str, assignment: Assignment) -> Run:
    """Import the code of the child's kind and let it load. Returns the function that runs the child.

    ``start_folder`` may lead to another release by now, or may have gone.
    """
    with contextlib.suppress(OSError):
        enter(start_folder)
    run: Run = importlib.import_module(ENTRIES[assignment.kind]).load(assignment)
    return run
