"""The future of `Client.call_async`: it always ends, with its call, or at once in a forked child.

Owns everything that happens then, whatever its callbacks do; its client sends the call, and sends it again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, Protocol

from rpccluster.client.core.attempts import ENDINGS, Attempts
from rpccluster.client.core.exchange.call import Call
from rpccluster.client.core.waiting import Waiting
from rpccluster.client.threads.forks import MARK, notice_fork
from rpccluster.client.threads.native import is_own_thread, log_error

__all__ = ["CallFuture", "Sender"]


class Sender(Protocol):
    """Sends a future's call."""

    def send(self, future: CallFuture) -> None:
        """Attempt the call in this thread, which may wait for a connection."""

    def send_soon(self, future: CallFuture) -> None:
        """Have the call attempted in a thread that may wait."""


class CallFuture(Future):
    """A future for `concurrent.futures.wait` and ``as_completed``; a thread of the client runs its callbacks."""

    def __init__(self, attempts: Attempts, sender: Sender, waiting: Waiting | None = None) -> None:
        super().__init__()
        self._waiting = waiting  # of a pool, which counts the attempts as a call
        self.attempts = attempts
        self.sender = sender
        #: Tells the connection on which the call is pending that nothing waits for its reply any more.
        self.forget: Callable[[], None] | None = None
        #: The bytes of its last attempt, so that the next one sends the same.
        self.request: bytes | None = None
        self.expirer: Any = None  # that watches it
        self._is_cancelled = threading.Lock()

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, as a `concurrent.futures.Future` does; ends at once in a copy of the process."""
        if not MARK[0]:
            notice_fork()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, as a `concurrent.futures.Future` does; ends at once in a copy of the process."""
        if not MARK[0]:
            notice_fork()
        return super().exception(timeout)

    def cancel(self) -> bool:
        """Give the call up; its reply is dropped when it comes. Returns False if the future has ended already."""
        if not MARK[0]:
            notice_fork()
        self._leave()  # if it cannot be cancelled any more, it has left before
        if not super().cancel():
            return False
        if self._is_cancelled.acquire(False):
            self.set_running_or_notify_cancel()  # it is `wait` and `as_completed` that are notified
            if self.forget is not None:
                self.forget()
        return True

    def settle(self, call: Call) -> None:
        """End as ``call`` has ended, unless it is sent again."""
        error: Exception | None = call.error
        if isinstance(error, ENDINGS):
            error = self.attempts.failed(error, False)
            if error is None:
                return self.sender.send_soon(self)
        return self.end(error, call)

    def end(self, error: BaseException | None, call: Call | None = None) -> None:
        """End with ``error``, or with the value of ``call``. Whoever learns of it finds it counted out."""
        self._leave()
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
            if error is not None:
                self.set_exception(error)
            elif call is not None:
                self.set_result(call.value)

    def _leave(self) -> None:
        if self._waiting is not None:
            self._waiting.leave((self.attempts,))

    def end_in_child(self, call: Call) -> None:
        """End a forked copy, without callbacks, which the parent runs, and without the parent's locks."""
        self._done_callbacks: list[Callable[[CallFuture], object]] = []
        if self._condition.acquire(blocking=False):
            self._condition.release()
        else:
            self._condition = threading.Condition()
        self.end(call.error, call)

    def _invoke_callbacks(self) -> None:
        """Call each callback, whatever another one raises; none ends a thread of the client."""
        ending = None
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException as error:
                if isinstance(error, Exception) or is_own_thread():
                    log_error(f"A callback of {self!r} has failed", error)
                else:
                    ending = error  # that of the thread which cancels
        if ending is not None:
            raise ending
