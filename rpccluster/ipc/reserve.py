"""Keeps descriptors in reserve for work that must not fail when the process may open no more. Master and workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from os import close  # imported before gevent patches it: gevent's own closes later

__all__ = ["Reserve"]


class Reserve:
    """Open descriptors without a use, which make room for others when the process may open no more."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: list[int] = []
        self._fill()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Free the reserve during the ``with`` block, then fill it again as far as possible."""
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
        """Close all descriptors of the reserve."""
        while self._held:
            close(self._held.pop())
