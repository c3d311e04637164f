"""`rpccluster.queue`: a queue of the cluster that this process belongs to.

The master tells its children where the keeper is. Runs in workers, where it waits as a greenlet does, in plugins, in
task processes and in what these start.
"""

from __future__ import annotations

import os

from rpccluster.client.sync.queue import Queue

__all__ = ["VARIABLE", "queue"]

VARIABLE = "RPCCLUSTER_QUEUES"  # of the environment: the keeper's address

_queues: dict[str, Queue] = {}


def queue(name: str) -> Queue:
    """Return the queue ``name`` of the cluster that this process belongs to, the same object each time.

    Raises RuntimeError in a process that belongs to no cluster with queues.
    """
    found = _queues.get(name)
    if found is None:
        address = os.environ.get(VARIABLE, "")
        if not address:
            raise RuntimeError("this process belongs to no cluster that has a section [queues]")
        found = _queues.setdefault(name, Queue(address, name))
    return found
