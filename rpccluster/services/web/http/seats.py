"""The places of connections: there are so many, and a new one takes that of the connection that rested longest.

So clients that send nothing, or read nothing, keep nobody out. Runs in the page's process.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent

__all__ = ["MOST_CONNECTIONS", "Seats"]

MOST_CONNECTIONS = 512


class Seats:
    """The greenlets of all connections, that which was silent longest first."""

    def __init__(self, most: int = MOST_CONNECTIONS, present: Callable[[], Any] = gevent.getcurrent) -> None:
        """``present`` returns the greenlet that runs."""
        self._most = most
        self._present = present
        self._since: dict[Any, float] = {}

    def __len__(self) -> int:
        return len(self._since)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place for the greenlet that runs; it is killed if its place goes to another."""
        greenlet = self._present()
        if len(self._since) >= self._most:
            oldest = next(iter(self._since))
            del self._since[oldest]
            oldest.kill(block=False)
        self._since[greenlet] = time.monotonic()
        try:
            yield
        finally:
            self._since.pop(greenlet, None)

    def note_life(self) -> None:
        """Note that the connection of the greenlet that runs has just sent a request or read an answer."""
        greenlet = self._present()
        if self._since.pop(greenlet, None) is not None:
            self._since[greenlet] = time.monotonic()

    def end_all(self) -> None:
        """End all connections where they are."""
        for greenlet in list(self._since):
            greenlet.kill(block=False)
