"""The future of `Client.call_async`: it ends with its call, in a forked child at once, and always.

Owns what happens to it then, whatever its callbacks do; sending it, and sending it again, is its client's affair.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Any

from rpccluster.client.core.attempts import Attempts
from rpccluster.client.core.exchange.calls import Call
from rpccluster.client.threads.forks import MARK, notice_fork
from rpccluster.client.threads.own import is_own_thread, log_error, start_thread
from rpccluster.errors import ConnectionLost, NotSent

__all__ = ["CallFuture", "Resender"]


class CallFuture(Future):
    """Works with `concurrent.futures.wait`, ``as_completed`` and callbacks, which run in a thread of the client's."""

    def __init__(
        self, attempts: Attempts, send: Callable[[CallFuture], None], send_again: Callable[[CallFuture], None]
    ) -> None:
        super().__init__()
        self.attempts = attempts
        #: Makes an attempt, in the thread that calls it; ``send_again`` has it called in one that may wait.
        self.send = send
        #: Where the call is pending: tells that nobody waits for it any more.
        self.forget: Callable[[], None] | None = None
        #: The connection of its last attempt.
        self.connection: object = None
        #: The bytes of its last attempt, so that the next one sends the same.
        self.request: bytes | None = None
        self.expirer: Any = None  # that watches it
        self._send_again = send_again
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
                return self._send_again(self)
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


def _give_up(future: CallFuture) -> None:
    future.end(future.attempts.last_error or NotSent("no thread can be had to connect; the call did not run"))


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
            future.send(future)
        except BaseException as error:
            future.end(error)
