"""Threads that sleep while another one receives for them: by call, the locks on which they sleep.

It has no lock of its own: each method removes in one step the threads that it wakes, so that none is woken twice.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

from rpccluster.client.core.exchange.call import Call, CallState

__all__ = ["Followers", "new_waker", "sleep"]

_NEW = CallState.NEW
_NOBODY: tuple[Any, int] = (None, 0)


def new_waker() -> Any:
    """Make a lock that is held until its sleeper is woken."""
    waker = threading.Lock()
    waker.acquire()
    return waker


def sleep(waker: Any, deadline_at: float) -> bool:
    """Sleep until ``waker`` is released. Returns False at the deadline."""
    left = deadline_at - monotonic()
    if left > threading.TIMEOUT_MAX:
        return bool(waker.acquire())
    return bool(waker.acquire(timeout=left)) if left > 0 else bool(waker.acquire(False))


class Followers(dict[Call, "tuple[Any, int]"]):
    """The sleeping threads by call. A dict, because each call asks whether it is empty."""

    def wake(self, call: Call) -> bool:
        """Wake the thread that waits for ``call``. Returns False if none does."""
        waker, _ = self.pop(call, _NOBODY)
        if waker is None:
            return False
        waker.release()
        return True

    def wake_without_call(self) -> None:
        """Wake the threads without a call, which wait for bytes to be sent, or for news."""
        for call in list(self):
            if call.state is _NEW:
                self.wake(call)

    def wake_all(self) -> None:
        """Wake all threads."""
        for call in list(self):
            self.wake(call)
