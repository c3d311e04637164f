"""Wakes the loop of the worker from other threads: a deque and one watcher, nothing is polled. Runs in the worker.

A thread puts a value into the deque, and writes once for all that the loop has not taken yet. The flag ``_is_told`` is
cleared before the deque is read: a value that was put while it was set is found then.

The write lets go of the interpreter, so the loop, which the kernel wakes at once, finds it free. An async watcher of
libev would write while the thread holds it, and the loop would wake only to wait for the interpreter: one switch more,
15 µs of 55 that a call in a thread costs beside a plain one.
"""

from __future__ import annotations

import sys
from collections import deque
from os import close, read, write
from typing import Any, Callable

from rpccluster.system import READABLE, self_pipe

__all__ = ["Wake"]

_ONE = (1).to_bytes(8, sys.byteorder)


class Wake:
    """Passes arguments from any thread to a function that the thread of the loop calls."""

    __slots__ = ("_append", "_from", "_is_told", "_items", "_take", "_to", "_watcher")

    def __init__(self, loop: Any, take: Callable[..., object]) -> None:
        """``take`` gets the arguments in their order; it must not raise."""
        self._items: deque[tuple[Any, ...]] = deque()
        self._append = self._items.append
        self._take = take
        self._is_told = False
        self._from, self._to = self_pipe()
        self._watcher = loop.io(self._from, READABLE, ref=False)
        self._watcher.start(self._take_all)

    def put(self, arguments: tuple[Any, ...]) -> None:
        """Let the loop call the function with ``arguments`` soon. Runs in any thread."""
        self._append(arguments)
        if not self._is_told:
            self._is_told = True
            write(self._to, _ONE)

    def close(self) -> None:
        """Let go of the descriptors. What is put from now on is never taken."""
        self._is_told = True  # a thread that puts something writes nothing
        self._watcher.close()
        for end in {self._from, self._to}:
            close(end)

    def _take_all(self) -> None:
        try:
            read(self._from, 4096)
        except BlockingIOError:  # woken for nothing
            pass
        self._is_told = False
        items, take = self._items, self._take
        while items:
            take(*items.popleft())
