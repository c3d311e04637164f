"""The names of Python's ``multiprocessing.managers``, for queues.

A program that shares a queue between processes runs with its import changed to
``from rpccluster.compat.managers import BaseManager``. An item is given again if its consumer
dies before `QueueProxy.task_done`, and processes connect anew by themselves. See docs/queue.md.
"""

from __future__ import annotations

from rpccluster.compat.managers.manager import BaseManager
from rpccluster.compat.managers.proxy import QueueProxy

__all__ = ["BaseManager", "QueueProxy"]
