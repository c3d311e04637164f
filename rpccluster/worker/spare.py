"""Descriptors kept free for what must not fail when the process may hold no more. Runs in the worker."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["Spare"]


class Spare:
    """Some descriptors that are open for nothing, to be closed when others are needed for a moment."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._held: list[int] = []
        self._fill()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Inside, as many more may be opened; afterwards as many as can be had are kept again."""
        self.close()
        try:
            yield
        finally:
            self._fill()

    def _fill(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._held) < self._number:
                self._held.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Hold none."""
        while self._held:
            os.close(self._held.pop())
