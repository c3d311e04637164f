"""What native threads are made of, from before gevent's patch: threads, locks, a queue, a condition, a mark at forks.

The patched ones belong to greenlets: a `queue.Queue` between a thread and a greenlet loses wake-ups, and a patched lock
makes a second hub in the thread that waits for it. Runs in the worker.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from typing import Any, Protocol

from gevent.monkey import get_original

__all__ = ["Condition", "Forked", "SimpleQueue", "allocate_lock", "start_new_thread", "tell_forked", "thread_id"]

allocate_lock = get_original("_thread", "allocate_lock")
start_new_thread = get_original("_thread", "start_new_thread")
thread_id = get_original("_thread", "get_ident")


class _Queue:
    """An unbounded queue between native threads, for a Python that has none of its own in C."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiting: deque[Any] = deque()  # a lock for each thread that waits
        self._lock = allocate_lock()

    def put(self, item: Any) -> None:
        """Add ``item``, and wake one thread that waits."""
        with self._lock:
            self._items.append(item)
            if self._waiting:
                self._waiting.popleft().release()

    def get(self) -> Any:
        """Wait for an item, and remove it."""
        while True:
            with self._lock:
                if self._items:
                    return self._items.popleft()
                mine = allocate_lock()
                mine.acquire()
                self._waiting.append(mine)
            mine.acquire()


SimpleQueue: Any
try:  # CPython's own, since gevent has patched the name in `queue`
    from _queue import SimpleQueue
except ImportError:  # PyPy
    SimpleQueue = _Queue


class Condition:
    """A condition of native threads, with as much of `threading.Condition` as a `concurrent.futures.Future` uses."""

    __slots__ = ("_lock", "_waiting")

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._waiting: list[Any] = []

    def acquire(self) -> None:
        """Take the lock."""
        self._lock.acquire()

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, without the lock, for `notify_all`, at most ``timeout`` seconds. Returns whether it came."""
        mine = allocate_lock()
        mine.acquire()
        self._waiting.append(mine)
        self._lock.release()
        try:
            return bool(mine.acquire(True, -1 if timeout is None else max(0.0, timeout)))
        finally:
            self._lock.acquire()

    def notify_all(self) -> None:
        """Wake all threads that wait; the caller has the lock."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.release()


class Forked(Protocol):
    """A part whose threads a forked child does not have."""

    def forked(self) -> None:
        """Raise from now on where the part would wait for a thread that is not there. Runs in the child."""


_parts: weakref.WeakSet[Any] = weakref.WeakSet()


def tell_forked(part: Forked) -> None:
    """Call ``part.forked()`` in each child that this process forks, before the child goes on."""
    _parts.add(part)


def _tell_all() -> None:
    for part in list(_parts):
        part.forked()
    _parts.clear()


os.register_at_fork(after_in_child=_tell_all)
