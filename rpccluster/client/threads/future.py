"""The future of `Client.call_async`: it ends with its call, in a forked child at once, and always.

Owns what happens to it then, whatever its callbacks do; sending it, and sending it again, is its client's affair.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, Protocol

from rpccluster.client.core.attempts import Attempts
from rpccluster.client.core.exchange.call import Call
from rpccluster.client.threads.forks import MARK, notice_fork
from rpccluster.client.threads.native import is_own_thread, log_error
from rpccluster.errors import ConnectionLost

__all__ = ["CallFuture", "Sender"]


class Sender(Protocol):
    """Sends a future's call."""

    def send(self, future: CallFuture) -> None:
        """Make an attempt in this thread, which may wait for a connection."""

    def send_soon(self, future: CallFuture) -> None:
        """Have it made in a thread that may wait."""


class CallFuture(Future):
    """Works with `concurrent.futures.wait`, ``as_completed`` and callbacks, which run in a thread of the client's."""

    def __init__(self, attempts: Attempts, sender: Sender) -> None:
        super().__init__()
        self.attempts = attempts
        self.sender = sender
        #: Where the call is pending: tells that nobody waits for it any more.
        self.forget: Callable[[], None] | None = None
        #: The bytes of its last attempt, so that the next one sends the same.
        self.request: bytes | None = None
        self.expirer: Any = None  # that watches it
        self._is_cancelled = threading.Lock()

    def result(self, timeout: float | None = None) -> Any:
        """As beneath; in a copy of the process that nobody has told of the fork, too."""
        if not MARK[0]:
            notice_fork()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Likewise."""
        if not MARK[0]:
            notice_fork()
        return super().exception(timeout)

    def cancel(self) -> bool:
        """Give the call up; its reply is dropped when it comes. False if the future has ended already."""
        if not MARK[0]:
            notice_fork()
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
                return self.sender.send_soon(self)
            error = self.attempts.error
        return self.end(error, call)

    def end(self, error: BaseException | None, call: Call | None = None) -> None:
        """End with ``error``, or with the value of ``call``."""
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
            if error is not None:
                self.set_exception(error)
            elif call is not None:
                self.set_result(call.value)

    def end_in_child(self, call: Call) -> None:
        """End a copy that a fork made: no callbacks, which the parent runs, nor locks of threads that are not here."""
        self._done_callbacks: list[Callable[[CallFuture], object]] = []
        if self._condition.acquire(blocking=False):
            self._condition.release()
        else:
            self._condition = threading.Condition()
        self.end(call.error, call)

    def _invoke_callbacks(self) -> None:
        """As beneath, but each is called, whatever another one raises; and that ends no thread of ours."""
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
