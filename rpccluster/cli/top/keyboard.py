"""The keyboard: a terminal that tells each key at once, and the names of keys. The process that the user starts."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Iterator
from types import TracebackType

__all__ = ["Keyboard", "keys_in"]

_NAMES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[Z": "shift-tab",
    b"\t": "tab",
    b"\r": "enter",
    b"\n": "enter",
    b"\x03": "ctrl-c",
    b"\x1b": "esc",
}


def keys_in(data: bytes) -> Iterator[str]:
    """Return the names of the keys that have sent ``data``, which was read at once. Unknown ones are left out."""
    while data:
        length = next((size for size in (4, 3) if data[:size] in _NAMES), 0)
        if not length and data[:2] in (b"\x1b[", b"\x1bO"):
            return  # the sequence of another key
        piece, data = data[: length or 1], data[length or 1 :]
        name = _NAMES.get(piece) or piece.decode("ascii", "ignore")
        if name:
            yield name


class Keyboard:
    """The keyboard of the terminal at stdin, while it is entered."""

    def __enter__(self) -> Keyboard:
        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return sys.stdin.fileno()

    def read(self) -> list[str]:
        """Return the names of the keys that were pressed; "q" if the terminal has gone."""
        data = os.read(self.fileno(), 1024)
        return list(keys_in(data)) if data else ["q"]
