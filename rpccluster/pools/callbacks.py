"""Runs the callbacks of tasks, one after another, in one thread of the pool's (a greenlet where gevent has patched).

The thread is made with the first callback, and ends when it is told to. What a callback raises is logged, and hurts
nothing. Runs in the process that submits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from rpccluster.pools.future import TaskFuture, log_callback_error

__all__ = ["Callbacks"]


class _Call(NamedTuple):
    future: TaskFuture
    callbacks: list[Callable[[Any], object]]
    value: Any


class Callbacks:
    """The callbacks of one pool. ``note_told`` is called when those of a future have run."""

    def __init__(self, note_told: Callable[[TaskFuture], object]) -> None:
        self._note_told = note_told
        self._calls: deque[_Call | None] = deque()
        self._came = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def is_here(self) -> bool:
        """Whether the caller is a callback."""
        return threading.current_thread() is self._thread

    def call(self, future: TaskFuture, callbacks: list[Callable[[Any], object]], value: Any) -> None:
        """Have each of ``callbacks`` called with ``value``, soon."""
        self._put(_Call(future, callbacks, value))

    def end(self) -> None:
        """End the thread after all callbacks that have been asked for, and wait for that; not in a callback itself."""
        if self._thread is not None:
            self._put(None)
            if not self.is_here:
                self._thread.join()

    def _put(self, call: _Call | None) -> None:
        with self._came:
            self._calls.append(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rpccluster-pool-callbacks", daemon=True)
                self._thread.start()
            self._came.notify()

    def _run(self) -> None:
        while True:
            with self._came:
                while not self._calls:
                    self._came.wait()
                call = self._calls.popleft()
            if call is None:
                return
            for callback in call.callbacks:
                try:
                    callback(call.value)
                except BaseException as error:
                    log_callback_error(call.future, error)
            self._note_told(call.future)
            del call  # its value may be large
