"""The families of metrics that come from counters in memory. Runs in the page's process."""

from __future__ import annotations

from rpccluster.child.assignment import Assignment, RPCPart
from rpccluster.metrics.families import Family

__all__ = ["Counters"]


class Counters:
    """The counters of the cluster, as this process reads them."""

    def __init__(self, assignment: Assignment[RPCPart]) -> None:
        self._assignment = assignment

    def families(self) -> list[Family]:
        """Return all families of what is counted."""
        return []
