"""The entry points of all installed packages, read once in the master for all its children, and again after a change.

An installation changes the time of the folder that it goes to. Python's own cache of a folder relies on that, too.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Any, Callable

__all__ = ["chosen_by_group", "entry_points"]

_Folders = list[tuple[str, int]]

_kept: tuple[_Folders, Any] | None = None


def entry_points() -> Any:
    """Return what `importlib.metadata.entry_points` returns without arguments, read again only if that may differ."""
    global _kept
    folders = _folders()
    if _kept is None or _kept[0] != folders:
        _kept = folders, metadata.entry_points()
    return _kept[1]


def chosen_by_group(everything: Any) -> Callable[..., Any]:
    """Return an `importlib.metadata.entry_points` that chooses from ``everything``, at no cost for an unknown group."""
    if not hasattr(everything, "select"):  # Python 3.9
        return lambda: everything
    groups = frozenset(everything.groups)

    def choose(**wanted: Any) -> Any:
        if not wanted:
            return everything
        if "group" in wanted and wanted["group"] not in groups:
            return ()
        return everything.select(**wanted)

    return choose


def _folders() -> _Folders:
    """Return when each folder of the search path has last changed; those that are missing are left out."""
    found = []
    for folder in sys.path:
        try:
            found.append((folder, os.stat(folder or os.curdir).st_mtime_ns))
        except OSError:
            continue
    return found
