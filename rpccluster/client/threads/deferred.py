"""The futures whose calls wait for a connection: who sends them, and who ends those that wait for too long.

In a process patched by gevent each hub has its own threads for that, since locks and sockets belong to one hub.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from rpccluster.client.threads.expirer import Expirer
from rpccluster.client.threads.future import CallFuture
from rpccluster.client.threads.native import start_thread, this_hub
from rpccluster.errors import NotSent

__all__ = ["Deferred"]


class Deferred:
    """The deferred futures of one client, or of a pool with so many ``addresses``."""

    def __init__(self, addresses: int) -> None:
        self._addresses = addresses
        self._expirers: dict[Any, Expirer] = {}  # by hub
        self._resenders: dict[Any, Resender] = {}  # by hub

    def add(self, future: CallFuture, deadline_at: float) -> None:
        """Have ``future`` sent soon, and ended at its deadline if it has not been sent by then."""
        hub = this_hub()
        (self._expirers.get(hub) or self._expirers.setdefault(hub, Expirer())).watch(future, deadline_at)
        (self._resenders.get(hub) or self._resenders.setdefault(hub, Resender(self._addresses))).submit(future)

    def close(self) -> None:
        """End them all."""
        for expirer in list(self._expirers.values()):
            expirer.close()

    def end_in_child(self) -> None:
        """In a forked child: end the copies of them all; the calls, and the threads, are the parent's."""
        for expirer in self._expirers.values():
            expirer.end_in_child()
        self._resenders, self._expirers = {}, {}


def _give_up(future: CallFuture) -> None:
    future.end(future.attempts.error or NotSent("no thread can be had to connect; the call did not run"))


class Resender:
    """Sends what waits for a connection, and again what may be, in a thread of its own: connecting takes time, and
    others wait to be woken. With several ``threads`` those that wait for one address do not hold up the others.

    Without a lock, since a finalizer may submit a future in the middle of a submission.
    """

    def __init__(self, threads: int = 1) -> None:
        self._futures: deque[CallFuture] = deque()
        # for each thread a flag that it is running, which one alone can raise; nobody waits for it
        self._are_running = [threading.Lock() for _ in range(threads)]

    def submit(self, future: CallFuture) -> None:
        """Have it sent soon. It ends with the error of its last attempt if no thread can be had."""
        self._futures.append(future)
        is_running = next((flag for flag in self._are_running if flag.acquire(False)), None)
        if is_running is None:
            return
        try:
            start_thread(partial(self._run, is_running), "rpccluster resender")
        except Exception:
            is_running.release()
            if not any(flag.locked() for flag in self._are_running):
                self._for_each(_give_up)

    def _run(self, is_running: threading.Lock) -> None:
        while True:
            self._for_each(self._attempt)
            is_running.release()
            if not self._futures or not is_running.acquire(False):
                return

    def _for_each(self, act: Callable[[CallFuture], None]) -> None:
        while True:
            try:
                future = self._futures.popleft()
            except IndexError:
                return
            act(future)

    def _attempt(self, future: CallFuture) -> None:
        try:
            future.sender.send(future)
        except BaseException as error:
            future.end(error)
