"""Waits until all jobs are done, then ends the manager: python terminator.py HOST:PORT"""

from __future__ import annotations

import os
import signal
import sys

from rpccluster.compat.managers import BaseManager


class QueueManager(BaseManager):
    """The names by which the queues are found."""


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    QueueManager.register("jobs")
    QueueManager.register("ends")
    manager = QueueManager(address=(host, int(port)), authkey=b"a shared secret")
    manager.connect()
    manager.jobs().join()
    os.kill(manager.ends().get(), signal.SIGTERM)
    print("All jobs were done")
