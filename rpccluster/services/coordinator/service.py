"""What the coordinator serves: who leads, as far as is known here; and its end. Runs in the coordinator."""

from __future__ import annotations

from typing import Any

from rpccluster.leading.page import LeadPage
from rpccluster.service import Service, WorkerInfo, rpc
from rpccluster.services.coordinator.attending import Attending

__all__ = ["Coordinator"]


class Coordinator(Service):
    """The methods of the coordinator."""

    def __init__(self, page: LeadPage, attending: Attending) -> None:
        self._page = page
        self._attending = attending
        self.leaves = False  # the whole cluster stops: the lead is free then

    @rpc(name="leader.show")
    def show(self) -> dict[str, Any]:
        """Return whether this cluster leads, and who does otherwise; the same that ``status`` has."""
        return self._page.shown()

    def worker_stopping(self, worker: WorkerInfo) -> None:
        """Let go of the store, or leave it."""
        self._attending.end(leave=self.leaves)
