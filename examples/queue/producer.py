"""Puts numbers into the queue: python producer.py HOST:PORT COUNT"""

from __future__ import annotations

import sys

from rpccluster.compat.managers import BaseManager


class QueueManager(BaseManager):
    """The names by which the queues are found."""


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    QueueManager.register("jobs")
    manager = QueueManager(address=(host, int(port)), authkey=b"a shared secret")
    manager.connect()
    jobs = manager.jobs()
    for number in range(int(sys.argv[2])):
        jobs.put({"number": number})
    print("Put", sys.argv[2], "jobs")
