"""The methods of the control socket that concern the lead: who has it, and to give it up. Runs in the master."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rpccluster.master.control.group_operations import expect
from rpccluster.master.control.server import Answer, Method
from rpccluster.master.kinds.services.coordinating import Coordinating

__all__ = ["LeaderOperations"]


class LeaderOperations:
    """``leader.show`` and ``leader.resign``."""

    def __init__(self, coordinating: Coordinating) -> None:
        self._coordinating = coordinating

    def methods(self) -> Mapping[str, Method]:
        """Return the methods by their names."""
        return {"leader.show": self._show, "leader.resign": self._resign}

    def _show(self, params: list[Any], answer: Answer) -> None:
        expect(params, 0)
        shown = self._coordinating.show()
        answer(None if shown else "RuntimeError: there is no section [leadership]", shown)

    def _resign(self, params: list[Any], answer: Answer) -> None:
        expect(params, 0)
        self._coordinating.resign(lambda error, told: answer(f"RuntimeError: {error}" if error else None, told))
