"""Asks the master for what is shown, in a thread of its own, so that keys never wait.

The process that the user starts.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterable
from typing import Any, Union

import psutil

from rpccluster.cli.top.snapshots import MethodCounts, Snapshot
from rpccluster.client import Client
from rpccluster.errors import RemoteError, RPCClusterError

__all__ = ["Failed", "Fetched", "Fetcher", "Stack"]

ANSWER_SECONDS = 5.0


class Failed(str):
    """Why the master has told nothing."""


class Stack(str):
    """Where a worker is, or why that is not known."""


Fetched = Union[Snapshot, Failed, Stack]


class Fetcher:
    """The thread. ``found`` has what it has fetched; a byte comes out of ``woken`` with each.

    Whoever writes to ``wake_descriptor`` wakes its reader, too.
    """

    def __init__(self, path: str, seconds: float) -> None:
        """It looks every ``seconds``, at the control socket ``path``."""
        self._path = path
        self._seconds = seconds
        self._orders: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.found: queue.SimpleQueue[Fetched] = queue.SimpleQueue()
        self.woken, self.wake_descriptor = os.pipe()
        os.set_blocking(self.wake_descriptor, False)
        os.set_blocking(self.woken, False)

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._work, daemon=True).start()

    def ask_for_stack(self, pid: int) -> None:
        """Fetch the stack of the worker ``pid``, too."""
        self._orders.put(pid)

    def _work(self) -> None:
        client: Client | None = None
        due = 0.0
        while True:
            try:
                if client is None:
                    client = Client(f"unix://{self._path}", timeout=ANSWER_SECONDS)
                pid = self._next_order(due)
                if pid:
                    self._tell(_stack(client, pid))
                else:
                    due = time.monotonic() + self._seconds
                    self._tell(look(client))
            except Exception as error:  # an upgrade ends the connection, and another version may tell other things
                self._tell(Failed(error if isinstance(error, RPCClusterError) else f"found {error!r} in an answer"))
                if client is not None:
                    client.close()
                client = None
                time.sleep(self._seconds)

    def _next_order(self, due: float) -> int:
        """Return the pid whose stack is wanted; 0 when it is time to look."""
        with contextlib.suppress(queue.Empty):
            return self._orders.get(timeout=max(0.0, due - time.monotonic()))
        return 0

    def _tell(self, found: Fetched) -> None:
        self.found.put(found)
        with contextlib.suppress(BlockingIOError):  # it is awake
            os.write(self.wake_descriptor, b"x")


def look(client: Client) -> Snapshot:
    """Ask the master for everything once. Raises `RPCClusterError`."""
    status = client.call("status")
    calls = client.call("worker.calls") if status["workers"] else []
    counts, bounds, missing = _methods(client)
    has_pools = any(group["kind"] == "dispatcher" for group in status["groups"])
    pools: list[Any] = []
    if has_pools:
        with contextlib.suppress(RemoteError):  # the dispatcher is just replaced
            pools = client.call("pool.list")
    return Snapshot(time.monotonic(), status, calls, counts, bounds, missing, pools, _cpu(_pids(status)))


def _methods(client: Client) -> tuple[dict[str, MethodCounts] | None, list[float], str]:
    try:
        told = client.call("metrics.methods")
    except RemoteError as error:
        return None, [], error.message.partition(": ")[2] or "this master counts no calls"
    return {name: MethodCounts(*counts) for name, counts in told["methods"].items()}, told["bounds"], ""


def _stack(client: Client, pid: int) -> Stack:
    try:
        return Stack(client.call("worker.stack", pid))
    except RemoteError as error:
        return Stack(error.message)


def _pids(status: dict[str, Any]) -> set[int]:
    processes = [each for group in status["groups"] for each in group["processes"]]
    return {each["pid"] for each in [*status["workers"], *processes] if each["pid"] is not None}


def _cpu(pids: Iterable[int]) -> dict[int, float]:
    """Return the CPU seconds of processes; those of another machine's namespace, or that have ended, are left out."""
    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            found[pid] = times.user + times.system
    return found
