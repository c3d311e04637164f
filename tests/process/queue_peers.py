"""A producer or a consumer of a queue in a process of its own, which may be killed; it writes down what it knows.

``queue_peers.py producer ADDRESS QUEUE FILE NAME COUNT`` or ``… consumer ADDRESS QUEUE FILE``. A line of FILE is an
event, written at once: ``P TIME ID VALUE`` for a put that was answered, ``G TIME ID ATTEMPT VALUE`` for an item that
was given, ``A TIME ID ATTEMPT`` for an ack that was answered. TIME is seconds of the monotonic clock.
"""

from __future__ import annotations

import os
import sys
import time

from rpccluster import Queue
from rpccluster.errors import LeaseLost, RPCClusterError

PATIENCE = 60.0


def main(kind: str, address: str, name: str, path: str, *more: str) -> None:
    """Produce or consume."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(what: str, *words: object) -> None:
        os.write(file, f"{what} {time.monotonic():.6f} {' '.join(map(str, words))}\n".encode())

    with Queue(address, name, timeout=PATIENCE) as queue:
        if kind == "producer":
            for number in range(int(more[1])):
                value = f"{more[0]}-{number}"
                note("P", queue.put(value), value)
            return
        while True:
            try:
                item = queue.get(timeout=10.0)
                if item is None:
                    continue
                note("G", item.id, item.attempt, item.value)
                item.ack()
                note("A", item.id, item.attempt)
            except LeaseLost:
                note("L")
            except RPCClusterError as error:
                note("E", type(error).__name__, str(error).replace("\n", " "))


if __name__ == "__main__":
    main(*sys.argv[1:])
