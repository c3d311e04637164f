"""The lines that the processes of one plugin write: into a log, and kept for ``plugin tail``. Runs in the master.

Owns the plugin's own log file, if it has one. A line leads with its time, its process and the plugin's name. The file
is rotated only if it is a regular one, by renaming: it is opened for appending, and nothing seeks in it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import deque
from typing import Callable, NamedTuple

from rpccluster.config.accounts import identity_of
from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.errors import StartError
from rpccluster.log import LogFiles, logger
from rpccluster.log.lines import output_line
from rpccluster.log.outlet import Outlet

__all__ = ["PluginOutput", "Tail"]

KEPT_LINES = 1000
KEPT_CHARACTERS = 1 << 18


class Tail(NamedTuple):
    """The last lines of an output; the next one gets the number ``next_number``."""

    lines: list[str]
    next_number: int


class PluginOutput:
    """The output of one plugin."""

    def __init__(self, name: str, shared: Callable[[], Outlet]) -> None:
        """Lines go to ``shared``, the outlet of the cluster's log, unless `lead_to` names a file."""
        self._name = name
        self._shared = shared
        self._file: LogFiles | None = None
        self._most_bytes, self._backups = 0, 0
        self._bytes: int | None = None  # in the file; None if it is no regular file
        self._kept: deque[str] = deque()
        self._kept_characters = 0
        self._next_number = 0

    # -- the file

    def lead_to(self, options: PluginOptions) -> None:
        """Write to the log file of ``options`` from now on; if it cannot be opened, log that and change nothing."""
        self._most_bytes, self._backups = options.log_max_size, options.log_backups
        if options.log_file == (self._file.log_path if self._file else ""):
            return
        file = None
        if options.log_file:
            try:
                file = _opened(options)
            except (OSError, StartError) as error:
                logger.error("Cannot open the log of plugin %s: %s", self._name, error)
                return
        self.close()
        self._file = file
        self._measure()

    def reopen(self) -> None:
        """Open the file at its path again, since somebody may have renamed it. Raises OSError."""
        if self._file is not None:
            self._file.reopen()
            self._measure()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.drain()
            self._file.close()
            self._file = None

    @property
    def files(self) -> LogFiles | None:
        """Its own log file; None if it writes to the cluster's log."""
        return self._file

    def _measure(self) -> None:
        found = os.fstat(self._file.log_descriptor) if self._file is not None else None
        self._bytes = found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None

    def _rotate(self) -> None:
        """Rename the file to PATH.1, that to PATH.2 and so on, and open a new one."""
        assert self._file is not None
        path = self._file.log_path
        for number in range(self._backups - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}.{number}", f"{path}.{number + 1}")
        if self._backups:
            os.rename(path, f"{path}.1")
        else:
            os.unlink(path)
        self.reopen()

    # -- the lines

    def write(self, pid: int, lines: list[str]) -> None:
        """Write and keep ``lines`` of the process ``pid``."""
        outlet = self._file.outlet if self._file is not None else self._shared()
        for line in lines:
            written = output_line(pid, self._name, line)
            self._keep(written)
            data = f"{written}\n".encode("utf-8", "backslashreplace")
            outlet.write(data)
            if self._bytes is not None:
                self._bytes += len(data)
        if self._most_bytes and self._bytes is not None and self._bytes > self._most_bytes:
            self._bytes = 0  # if it fails: the next try comes with as many bytes
            try:
                self._rotate()
            except OSError as error:
                logger.error("Cannot rotate the log of plugin %s: %s", self._name, error)

    def _keep(self, line: str) -> None:
        self._kept.append(line)
        self._kept_characters += len(line)
        self._next_number += 1
        while len(self._kept) > KEPT_LINES or self._kept_characters > KEPT_CHARACTERS:
            self._kept_characters -= len(self._kept.popleft())

    def tail(self, number: int, since: int | None = None) -> Tail:
        """Return the last ``number`` lines; with ``since``, those of them that have this number or a later one.

        A number that is still to come is another master's, so it counts as none.
        """
        if since is not None and since <= self._next_number:
            number = min(number, max(0, self._next_number - since))
        kept = list(self._kept)
        return Tail(kept[max(0, len(kept) - number) :], self._next_number)


def _opened(options: PluginOptions) -> LogFiles:
    """Open the log file of ``options``. Raises OSError, or `StartError` for an unknown account."""
    identity = identity_of(options.user, options.group)
    file = LogFiles(options.log_file, "", (identity.uid, identity.gid) if identity else None, options.umask)
    file.open()
    return file
