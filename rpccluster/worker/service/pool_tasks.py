"""The tasks that a worker has submitted to pools, at its end. Runs in the worker.

A worker that has never submitted one has nothing of this in memory.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["end_tasks", "tasks_left"]

_SUBMITTER = "rpccluster.pools.cluster.submitter"


def _submitter() -> Any:
    module: Any = sys.modules.get(_SUBMITTER)
    return module.present() if module is not None else None


def tasks_left() -> list[str]:
    """Return the name of what is still waited for: tasks that have not ended."""
    submitter = _submitter()
    left = submitter.unended if submitter is not None else 0
    return [f"{left} task{'' if left == 1 else 's'} of pools"] if left else []


def end_tasks() -> None:
    """End the tasks that have not ended, since nobody waits for them any more."""
    submitter = _submitter()
    if submitter is not None:
        submitter.close()
