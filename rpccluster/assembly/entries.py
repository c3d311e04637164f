"""Where the code of each kind of child begins. The one list of them; runs in a forked child.

A kind's code is imported there and nowhere else: gevent, for one, never comes into the master.
"""

from __future__ import annotations

import contextlib
import importlib

from rpccluster.child.assignment import Assignment, Run
from rpccluster.system.launch import enter

__all__ = ["ENTRIES", "load"]

#: The module of each kind. Its function ``load`` is a `rpccluster.child.assignment.Load`.
ENTRIES = {
    "rpc": "rpccluster.worker.main",
}


def load(start_folder: str, assignment: Assignment) -> Run:
    """Import the code of the child's kind, and let it load what it consists of. Returns what runs the child.

    The name of ``start_folder`` may lead to another release by now, or nowhere.
    """
    with contextlib.suppress(OSError):
        enter(start_folder)
    run: Run = importlib.import_module(ENTRIES[assignment.kind]).load(assignment)
    return run
