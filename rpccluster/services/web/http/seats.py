"""The places of connections: there are so many, and a new one takes that of the connection that was silent longest.

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
        self._resting: set[Any] = set()

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
            self._resting.discard(greenlet)

    def note_life(self, *, rests: bool = False) -> None:
        """Note that the running greenlet's client has just sent a request, or has read an answer and ``rests``."""
        greenlet = self._present()
        if self._since.pop(greenlet, None) is not None:
            self._since[greenlet] = time.monotonic()
            (self._resting.add if rests else self._resting.discard)(greenlet)

    def end_resting(self) -> None:
        """End the connections that wait for a further request."""
        for greenlet in list(self._resting):
            greenlet.kill(block=False)

    def end_all(self) -> None:
        """End all connections where they are."""
        for greenlet in list(self._since):
            greenlet.kill(block=False)
