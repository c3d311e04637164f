"""Futures whose calls wait for a connection: sends them, and ends those that wait too long.

In a process that gevent has patched each hub has its own threads for that, since locks and sockets belong to one hub.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from rpccluster.client.core.exchange.call import Call
from rpccluster.client.threads.future import CallFuture
from rpccluster.client.threads.native import start_thread, this_hub
from rpccluster.errors import ConnectFailed, Lost, NotSent

__all__ = ["Deferred"]

_LEAST_SECONDS = 0.01  # between two looks


class Deferred:
    """The deferred futures of one client, or of a pool with that many ``addresses``."""

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
        """End all futures."""
        for expirer in list(self._expirers.values()):
            expirer.close()

    def end_in_child(self) -> None:
        """End the copies of all futures in a forked child; the parent has the calls and the threads."""
        for expirer in self._expirers.values():
            expirer.end_in_child()
        self._resenders, self._expirers = {}, {}


def _give_up(future: CallFuture) -> None:
    future.end(future.attempts.error or NotSent("no thread can be had to connect; the call did not run"))


class Resender:
    """Sends calls that wait for a connection, or may be sent again, in threads of its own.

    Connecting takes time, and other calls need to be woken. With several ``threads``, calls that wait for one address
    do not delay the others. It takes no lock, since a finalizer may submit a future in the middle of a submission.
    """

    def __init__(self, threads: int = 1) -> None:
        self._futures: deque[CallFuture] = deque()
        # for each thread a flag that it is running, which only one thread can raise; none waits for it
        self._are_running = [threading.Lock() for _ in range(threads)]

    def submit(self, future: CallFuture) -> None:
        """Have ``future`` sent soon. If no thread can be started, it ends with the error of its last attempt."""
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


class Expirer:
    """Ends futures at their deadlines, however long connecting takes. Its thread lives as long as there are some.

    The first to claim a future decides about it: the sender of its call, or the expirer. It holds no lock, since a
    signal handler or a finalizer may call, too.
    """

    def __init__(self) -> None:
        self._waiting: dict[CallFuture, float] = {}
        self._is_running = threading.Lock()  # a flag that only one thread can raise; none waits for it
        self._waker = threading.Lock()  # released for news

    def watch(self, future: CallFuture, deadline_at: float) -> None:
        """End ``future`` at its deadline unless it was claimed. Without a thread, its sender ends it."""
        future.expirer = self
        self._waiting[future] = deadline_at
        self._wake()
        if self._is_running.acquire(False):
            try:
                start_thread(self._run, "rpccluster expirer")
            except Exception:
                self._is_running.release()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # there is news already
            self._waker.release()

    def claim(self, future: CallFuture) -> bool:
        """Return whether ``future`` is still to be sent, and stop watching it."""
        future.expirer = None
        return self._waiting.pop(future, None) is not None

    def close(self) -> None:
        """End all watched futures."""
        for future in self._waiting.copy():
            if self.claim(future):
                future.end(NotSent("the client was closed; the call did not run"))
        self._wake()  # or the thread would sleep on until the last of their deadlines

    def end_in_child(self) -> None:
        """End the copies of all futures in a forked child; the parent has the calls."""
        for future in self._waiting:
            call = Call()
            call.error = Lost("the process was forked, and the reply goes to its parent")
            future.end_in_child(call)

    def _run(self) -> None:
        while True:
            while self._waiting:
                self._expire()
            self._is_running.release()
            if not self._waiting or not self._is_running.acquire(False):
                return

    def _expire(self) -> None:
        now = monotonic()
        waiting = self._waiting.copy()
        for future, at in waiting.items():
            if future.done():  # cancelled, or its attempt has failed
                self._waiting.pop(future, None)
            elif at <= now and self.claim(future):
                refusal = future.attempts.refusal
                future.end(refusal or ConnectFailed("no connection within the call's timeout"))
        left = min(waiting.values(), default=now) - now
        self._waker.acquire(timeout=min(max(_LEAST_SECONDS, left), threading.TIMEOUT_MAX))
