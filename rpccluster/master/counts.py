"""The file of the counters, and the master's own row of it. Runs in the master.

The file is in memory, and there is one for all masters of one line of upgrades: each passes it on to the next. Workers
get it if the configuration wants metrics; the master counts in any case, since that costs it nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rpccluster.ipc.fdpass import memory_file
from rpccluster.log import logger
from rpccluster.metrics.layout import LAYOUT, OTHER, Block, Outcome
from rpccluster.metrics.row import Row

__all__ = ["Counts"]

_SECTIONS = ("metrics", "web")  # whose process reads the counters


class Counts:
    """What one master counts; without a file it counts nothing, and neither do its workers."""

    def __init__(self, descriptor: int = -1) -> None:
        """``descriptor`` is that of the file, and is kept. Raises OSError."""
        self.descriptor = descriptor
        self._row = None if descriptor < 0 else Row(descriptor)
        self._versions: dict[str, int] = {}
        self._failure = ""  # why there is no file, until that is told

    @classmethod
    def begin(cls, memories: Mapping[str, int]) -> Counts:
        """Go on with the file that an old master has left among its ``memories``, or make one if that can be had."""
        descriptor = memories.get(LAYOUT, -1)
        try:
            descriptor = memory_file(name="metrics") if descriptor < 0 else descriptor
            return cls(descriptor)
        except OSError as error:  # a limit of the size of files holds for files in memory, too
            if descriptor >= 0:
                os.close(descriptor)
            made = cls()
            made._failure = str(error)
            return made

    def of(self, configuration: Any) -> int:
        """Return the descriptor for a process that counts if ``configuration`` wants metrics, -1 for none."""
        if not any(section in configuration.others for section in _SECTIONS):
            return -1
        if self._failure:
            logger.error("Nothing is counted: %s", self._failure)
            self._failure = ""
        return self.descriptor

    def note_restart(self, group: str, reason: str) -> None:
        """Count the end of a process of ``group`` that is replaced."""
        if self._row is not None:
            self._row.block(Block.RESTARTS, f"{group}\n{reason}")[0] += 1

    def lose(self, calls: int, method: str = OTHER) -> None:
        """Count calls that had begun in a worker that has died."""
        if self._row is not None:
            self._row.block(Block.METHOD, method)[Outcome.LOST] += calls

    def show_settings(self, versions: Mapping[str, int]) -> None:
        """Show the version of the settings of each group, by name; 0 for one that is gone."""
        if self._row is None or versions == self._versions:
            return
        for group in {*self._versions, *versions}:
            self._row.block(Block.SETTINGS, group)[0] = versions.get(group, 0)
        self._versions = dict(versions)
