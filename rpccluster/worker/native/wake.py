"""Wakes the loop of the worker from other threads: a deque and one watcher, nothing is polled. Runs in the worker.

A thread puts a value into the deque and signals the watcher, which costs it 0.1 µs. However many signals come, the loop
runs the callback once, so it takes everything that is there.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable

__all__ = ["Wake"]


class Wake:
    """Passes arguments from any thread to a function that the thread of the loop calls."""

    __slots__ = ("_append", "_items", "_signal", "_take", "_watcher")

    def __init__(self, loop: Any, take: Callable[..., object]) -> None:
        """``take`` gets the arguments in their order; it must not raise."""
        self._items: deque[tuple[Any, ...]] = deque()
        self._append = self._items.append
        self._take = take
        self._watcher = loop.async_(ref=False)
        self._watcher.start(self._take_all)
        self._signal = self._watcher.send

    def put(self, arguments: tuple[Any, ...]) -> None:
        """Let the loop call the function with ``arguments`` soon. Runs in any thread."""
        self._append(arguments)
        self._signal()

    def _take_all(self) -> None:
        items, take = self._items, self._take
        while items:
            take(*items.popleft())
