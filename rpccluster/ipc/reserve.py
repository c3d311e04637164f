"""Descriptors kept back for what must not fail when a process may hold no more. Used by the master and by workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from os import close  # gevent's, in a worker, closes later: this one was taken before

__all__ = ["Reserve"]


class Reserve:
    """Descriptors that are open for nothing, so that others can be had in their place when there are no more."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: list[int] = []
        self._fill()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Free them for what is done meanwhile; afterwards as many are kept back as can be had."""
        self.close()
        try:
            yield
        finally:
            self._fill()

    def _fill(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._held) < self._size:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Keep nothing back any more."""
        while self._held:
            close(self._held.pop())
