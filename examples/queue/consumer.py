"""Takes jobs until there was none for two seconds: python consumer.py HOST:PORT

Kill it in the middle: what it had taken and not done comes to the next consumer.
"""

from __future__ import annotations

import queue
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
    seen = set()
    try:
        while True:
            job = jobs.get(timeout=2)
            seen.add(job["number"])
            jobs.task_done()
    except queue.Empty:
        print("Done:", len(seen), "jobs")
