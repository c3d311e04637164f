"""Ends the futures whose calls wait for a connection when their time is over, however long connecting takes.

Its thread lives as long as there are such futures. No lock is held: a signal handler or a finalizer may call, too.
"""

from __future__ import annotations

import contextlib
import threading
from time import monotonic

from rpccluster.client.core.exchange.call import Call
from rpccluster.client.threads.future import CallFuture
from rpccluster.client.threads.native import start_thread
from rpccluster.errors import ConnectFailed, Lost, NotSent

__all__ = ["Expirer"]

_LEAST_SECONDS = 0.01  # between two looks


class Expirer:
    """Whoever claims a future first decides what becomes of it: the one who sends its call, or the expirer."""

    def __init__(self) -> None:
        self._waiting: dict[CallFuture, float] = {}
        self._is_running = threading.Lock()  # a flag that one thread alone can raise; nobody waits for it
        self._waker = threading.Lock()  # released for news

    def watch(self, future: CallFuture, deadline_at: float) -> None:
        """End ``future`` at its deadline unless it was claimed; without a thread to be had, whoever sends it does."""
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
        """Whether ``future`` is still to be sent; it is not watched any more."""
        future.expirer = None
        return self._waiting.pop(future, None) is not None

    def close(self) -> None:
        """End them all."""
        for future in self._waiting.copy():
            if self.claim(future):
                future.end(NotSent("the client was closed; the call did not run"))
        self._wake()  # or the thread would sleep on until the last of their deadlines

    def end_in_child(self) -> None:
        """In a forked child: end the copies of them all; the calls are the parent's."""
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
                future.end(ConnectFailed("no connection within the call's timeout"))
        left = min(waiting.values(), default=now) - now
        self._waker.acquire(timeout=min(max(_LEAST_SECONDS, left), threading.TIMEOUT_MAX))
