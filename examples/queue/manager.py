"""The manager of the program: a queue that processes share which need not be relatives. python manager.py HOST:PORT"""

from __future__ import annotations

import sys
from multiprocessing import JoinableQueue

from rpccluster.compat.managers import BaseManager  # in place of multiprocessing.managers


class QueueManager(BaseManager):
    """The names by which other processes find the queues."""


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    jobs, ends = JoinableQueue(), JoinableQueue()
    QueueManager.register("jobs", callable=lambda: jobs)
    QueueManager.register("ends", callable=lambda: ends)
    manager = QueueManager(address=(host, int(port)), authkey=b"a shared secret")
    manager.start()
    manager.ends().put(manager._process.ident)  # for the terminator
    print("The queue is at", ":".join(map(str, manager._address)), flush=True)
    manager._process.join()
    print("The manager has ended")
