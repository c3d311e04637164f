"""Watches the files of the service's modules, for ``reload_code``. Runs in the master, which never imports them.

It looks at the files twice a second, as long as there are any: an editor may replace a file, which ends a kernel's
watch of it. A change is due when none has followed for a moment, so that saving ten files is one reload.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ["CodeWatch"]

LOOK_SECONDS = 0.5


class CodeWatch:
    """The files to watch. ``wake_at`` is when to look at them next (monotonic seconds); infinity without files."""

    def __init__(self) -> None:
        self._marks: dict[str, tuple[int, int, int] | None] = {}
        self._has_changed = False
        self.wake_at = float("inf")

    def follow(self, files: Sequence[str], now: float) -> None:
        """Watch ``files`` beside those that are watched; none at all if it is empty."""
        if not files:
            self._marks.clear()
            self._has_changed, self.wake_at = False, float("inf")
            return
        for file in files:
            if file not in self._marks:
                self._marks[file] = _mark(file)
        self.wake_at = min(self.wake_at, now + LOOK_SECONDS)

    def turn(self, now: float) -> bool:
        """Look if it is time. Returns whether files have changed and none has since the last look."""
        if now < self.wake_at:
            return False
        self.wake_at = now + LOOK_SECONDS
        marks = {file: _mark(file) for file in self._marks}
        is_changing, self._marks = marks != self._marks, marks
        is_due = self._has_changed and not is_changing
        self._has_changed = is_changing
        return is_due


def _mark(file: str) -> tuple[int, int, int] | None:
    """Return date, size and inode of ``file``; None if it is not there."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
