"""Watches the files of the configuration, for ``reload_on_change``. Runs in the master.

The kernel tells of changes in the folders of each file and of each link to it, by a descriptor in the master's loop.
Thus it needs no thread, beside which the master may not fork, no process that somebody has to look after, and no
library. What is told is no more than a reason to look: all files are read, and their content is compared. So a log in
the same folder causes no reload, and neither does a file that is saved as it was. What the kernel does not tell (a
folder further above that moves, another host that shares the disk) is seen at a look every ten seconds.

A reload is due when the files have stayed the same for a second, and are others than those that the configuration in
force was read from. So a file that was read by another reload, or written by ``config set --write``, causes none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Optional

from rpccluster.config.files.include import read_files
from rpccluster.config.files.reading import mark_of
from rpccluster.master.cluster import Cluster
from rpccluster.master.loop import Loop
from rpccluster.system.files import FolderWatch, folders_to

__all__ = ["ConfigWatch"]

QUIET_SECONDS = 1.0  # without a change, until a change is due
PACE_SECONDS = 0.1  # between two looks, however often the kernel tells something
IDLE_SECONDS = 10.0  # between two looks if the kernel tells nothing
DEAF_SECONDS = 1.0  # the same, if it watches nothing
_NEVER = float("inf")

Marks = Mapping[str, Optional[int]]


class ConfigWatch:
    """The files of one cluster. ``wake_at`` is when to call `turn` if nothing happens (monotonic seconds).

    ``is_told`` says whether the kernel watches all folders.
    """

    def __init__(self, cluster: Cluster, loop: Loop, make_watch: Callable[[], FolderWatch] = FolderWatch) -> None:
        self._cluster = cluster
        self._loop = loop
        self._make_watch = make_watch
        self._watch: FolderWatch | None = None
        self._seen: Marks = {}
        self._quiet_at: float | None = None  # when a change that was seen is due
        self._looked_at = 0.0
        self.is_told = False
        self.wake_at = 0.0

    def turn(self, now: float, *, may_reload: bool) -> bool:
        """Look if it is time. Returns whether a reload is due; none is while it may not begin."""
        path = self._cluster.configuration.path
        if path is None or not self._cluster.options.reload_on_change or not may_reload:
            self.close()
            return False
        if self._watch is None:
            self._open()
        if now < self.wake_at:
            return False
        self._look(path, now)
        is_due = self._quiet_at is not None and now >= self._quiet_at
        if is_due:
            self._quiet_at = None
        self._plan(now)
        return is_due and self._seen != self._cluster.configuration.marks

    def _open(self) -> None:
        self._watch = self._make_watch()
        if self._watch.is_open:
            self._loop.watch(self._watch, self._note_change)
        self._seen, self.wake_at = self._cluster.configuration.marks, 0.0

    def _note_change(self) -> None:
        assert self._watch is not None
        self._watch.drain()
        self.wake_at = min(self.wake_at, self._looked_at + PACE_SECONDS)

    def _look(self, path: str, now: float) -> None:
        """Watch the folders as they are now, then read the files, so that no change is missed in between."""
        assert self._watch is not None
        reading = read_files(path, path)
        self.is_told = self._watch.follow(set(_folders([*reading.marks], reading.folders)))
        marks = {each: mark_of(each) for each in reading.marks}
        self._looked_at = now
        if marks != self._seen:
            self._seen, self._quiet_at = marks, now + QUIET_SECONDS

    def _plan(self, now: float) -> None:
        look_at = now + (IDLE_SECONDS if self.is_told else DEAF_SECONDS)
        self.wake_at = look_at if self._quiet_at is None else min(look_at, self._quiet_at)

    def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            if self._watch.is_open:
                self._loop.unwatch(self._watch)
            self._watch.close()
            self._watch = None
        self._quiet_at, self.wake_at = None, _NEVER


def _folders(files: list[str], folders: tuple[str, ...]) -> Iterator[str]:
    for path in [*files, *(os.path.join(folder, "new") for folder in folders)]:
        yield from folders_to(path)
