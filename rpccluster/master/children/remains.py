"""Kills what ended children have left outside of their process groups. Runs in the master.

Such descendants fall to the master, which is a subreaper, when their parents end, and have the child's mark. One look
is not enough: a process that is just dying may have started another one, which comes to the master a moment later. So
there is a look after each further death, and a last one when that moment is over.
"""

from __future__ import annotations

from collections.abc import Collection

from rpccluster.log import logger
from rpccluster.system import System

__all__ = ["Remains"]

LINGER_SECONDS = 0.5  # after the child's death, in which the rest of its group has died as well


class Remains:
    """The marks of the children that have just ended."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._marks: dict[str, float] = {}  # and when the last look is due
        self._names: set[str] = set()  # of those children, since there was no mark
        self._killed: set[int] = set()  # since there was no mark

    @property
    def wake_at(self) -> float:
        """When `look` must be called at the latest (monotonic seconds); infinity if there is nothing to look for."""
        return min(self._marks.values()) if self._marks else float("inf")

    def expect(self, mark: str, name: str, now: float) -> None:
        """Look for descendants with ``mark``, whose child has ended; ``name`` is for the log."""
        self._marks[mark] = now + LINGER_SECONDS
        self._names.add(name)

    def look(self, now: float, living: Collection[int]) -> None:
        """Kill what has one of the marks; the children ``living`` have descendants of their own."""
        killed = set(self._system.kill_marked(self._marks, living)) - self._killed
        self._killed |= killed
        soon = now + LINGER_SECONDS if killed else now  # the new ones may have started others
        self._marks = {mark: max(last, soon) for mark, last in self._marks.items() if max(last, soon) > now}
        if not self._marks:
            self._tell()

    def _tell(self) -> None:
        if self._killed:
            names = ", ".join(sorted(self._names))
            told = "Killed what %s had left outside of its process group: %d processes"
            logger.info(told, names, len(self._killed))
        self._killed.clear()
        self._names.clear()
