"""The future of `Client.call_async`: it ends with its call, in a forked child at once, and always.

Owns what happens to it then; sending it, and sending it again, is its client's affair.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

from rpccluster.client.attempts import Attempts
from rpccluster.client.calls import Call
from rpccluster.errors import ConnectionLost

__all__ = ["CallFuture", "Resender"]


class CallFuture(Future):
    """Works with `concurrent.futures.wait`, ``as_completed`` and callbacks, which run in any thread that receives."""

    def __init__(self, attempts: Attempts, send_again: Callable[[CallFuture], None]) -> None:
        super().__init__()
        self.attempts = attempts
        #: Where the call is pending: tells that nobody waits for it any more.
        self.forget: Callable[[], None] | None = None
        self._send_again = send_again
        self._is_cancelled = threading.Lock()

    def cancel(self) -> bool:
        """Give the call up; its reply is dropped when it comes. False if the future has ended already."""
        if not super().cancel():
            return False
        if self._is_cancelled.acquire(False):
            self.set_running_or_notify_cancel()  # it is `wait` and `as_completed` that are notified
            if self.forget is not None:
                self.forget()
        return True

    def settle(self, call: Call) -> None:
        """``call`` has ended; end likewise, unless it is sent again."""
        error = call.error
        if isinstance(error, ConnectionLost):
            if self.attempts.may_go_on(error):
                return self._send_again(self)
            error = self.attempts.error
        return self.end(error, call)

    def end(self, error: Exception | None, call: Call | None = None) -> None:
        """End with ``error``, or with the value of ``call``."""
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
            if error is not None:
                self.set_exception(error)
            elif call is not None:
                self.set_result(call.value)

    def end_in_child(self, error: Exception) -> None:
        """End a copy that a fork made: no callbacks, which the parent runs, nor locks of threads that are not here."""
        self._done_callbacks: list[object] = []
        if self._condition.acquire(blocking=False):
            self._condition.release()
        else:
            self._condition = threading.Condition()
        self.end(error)


class Resender:
    """Sends again what may be, in a thread of its own: connecting takes time, and others wait to be woken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: deque[Callable[[], None]] = deque()
        self._is_running = False

    def submit(self, task: Callable[[], None]) -> None:
        """Have ``task`` run soon."""
        with self._lock:
            self._tasks.append(task)
            if self._is_running:
                return
            self._is_running = True
        threading.Thread(target=self._run, name="rpccluster resender", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    self._is_running = False
                    return
                task = self._tasks.popleft()
            task()
