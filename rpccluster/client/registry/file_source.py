"""Follows the registry in a file, by looking at it: its name may stand for another file at any time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from threading import Event

from rpccluster.leading.registry import read_list

__all__ = ["FileSource"]

_LOOK_SECONDS = 0.2


class FileSource:
    """The list in the file at ``path``."""

    def __init__(self, path: str) -> None:
        self._path = path

    def follow(self, tell: Callable[[Mapping[str, bytes]], None], fail: Callable[[str], None], end: Event) -> None:
        """Tell the list whenever it has changed, and of failures, until ``end``."""
        seen: object = None
        while not end.is_set():
            try:
                found = _mark(self._path)
                if found != seen:
                    with open(self._path, "rb") as file:
                        tell(read_list(file.read()))
                    seen = found
            except OSError as error:
                fail(error.strerror or str(error))
            except ValueError as error:
                fail(str(error))
            end.wait(_LOOK_SECONDS)


def _mark(path: str) -> tuple[int, int, int, int]:
    """Return what differs from file to file and from change to change."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
