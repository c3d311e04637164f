"""The families of metrics that come from counters in memory. Runs in the page's process, which only reads them."""

from __future__ import annotations

from rpccluster.ipc.scoreboard import LIMITS
from rpccluster.leading.page import lead_page
from rpccluster.metrics.families import Family, families
from rpccluster.metrics.totals import Reader

__all__ = ["Counters"]


class Counters:
    """The counters of the cluster, as this process reads them."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is that of their file, -1 if there is none."""
        self._reader = Reader(descriptor) if descriptor >= 0 else None

    def families(self, *, has_leadership: bool) -> list[Family]:
        """Return all families of what is counted, and who leads if clusters agree on that."""
        if self._reader is None:
            return []
        is_leader = lead_page().is_leading if has_leadership else None
        return families(self._reader.read(), LIMITS, is_leader=is_leader)
