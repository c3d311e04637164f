"""The file of the counters, and the master's own row of it. Runs in the master.

The file is in memory, and there is one for all masters of one line of upgrades: each passes it on to the next. Workers
get it if the configuration wants metrics; the master counts in any case, since that costs it nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rpccluster.ipc.fdpass import memory_file
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

    @classmethod
    def begin(cls, memories: Mapping[str, int]) -> Counts:
        """Go on with the file that an old master has left among its ``memories``, or make one. Raises OSError."""
        inherited = memories.get(LAYOUT)
        return cls(memory_file(name="metrics") if inherited is None else inherited)

    def of(self, configuration: Any) -> int:
        """Return the descriptor for a process that counts if ``configuration`` wants metrics, -1 for none."""
        return self.descriptor if any(section in configuration.others for section in _SECTIONS) else -1

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
