"""The coordinator as its master sees it, and what the two say to each other. Runs in the master.

The coordinator shows on the page of the lead whether this cluster leads. It is watched more closely than others: one
that does not come round to its store is killed, so early that its successor renews the lease before that ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from rpccluster.child.own_code import OwnCode
from rpccluster.ipc.messages import LeadOrder, LeadTold, Message
from rpccluster.ipc.scoreboard import CoordinatorCell
from rpccluster.log import logger
from rpccluster.master.children.child import Child, ChildState
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.own_service import OwnService
from rpccluster.master.resources.service_listeners import LEADERSHIP

__all__ = ["Coordinating", "CoordinatorService"]

SILENT_SHARE = 4  # of a session, after which a coordinator is killed
LEAST_SILENCE = 0.5

#: Gets an error, or who leads.
Told = Callable[[str, Any], None]


class CoordinatorService(OwnService):
    """The kind of the coordinator's process."""

    def __init__(self, own_code: OwnCode | None, cluster: Cluster) -> None:
        super().__init__("coordinator", own_code)
        self._cluster = cluster

    def look(self, group: Group, child: Child, now: float) -> float | None:
        """Note that it has not come round to its store for too long."""
        super().look(group, child, now)
        if child.state is not ChildState.READY or child.is_killed:
            return None
        most = max(LEAST_SILENCE, self._session_seconds() / SILENT_SHARE)
        silent_at = (
            max(child.watched_since, child.row[CoordinatorCell.SIGN_OF_LIFE] / 1e9, child.ready_at or now) + most
        )
        if now >= silent_at:
            child.past_limit = f"no sign of life for {most:g} seconds"
            logger.critical("Coordinator (pid: %d) is killed: %s", child.pid, child.past_limit)
            return None
        return silent_at

    def _session_seconds(self) -> float:
        granted = self._cluster.lead.session_seconds
        own = self._cluster.configuration.others.get(LEADERSHIP)
        return granted or float(getattr(own, "session_timeout", 0.0))


class Coordinating:
    """The conversation with the coordinator, if there is one."""

    def __init__(self, cluster: Cluster, coordinator: OwnService, roster: Roster) -> None:
        self._cluster = cluster
        self._coordinator = coordinator
        self._roster = roster
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[Child, Told]] = {}

    def introduce(self, groups: Groups) -> None:
        """Tell a coordinator that has just become ready what it needs: nothing yet."""

    def turn(self, groups: Groups) -> None:
        """Tell it what has changed: it is replaced when its section changes."""

    def hear(self, message: Message, groups: Groups) -> None:
        """Take a message of the coordinator."""
        if isinstance(message, LeadTold):
            groups.wake()
            _, told = self._asked.pop(message.number, (None, _ignore))
            told(message.error, {"leader": message.leader or None, "token": message.token or None})

    def show(self) -> dict[str, Any] | None:
        """Return who leads, as ``status`` shows it; None without a section."""
        return self._cluster.lead.shown() if LEADERSHIP in self._cluster.configuration.others else None

    def resign(self, told: Told) -> None:
        """Have the lead given up; ``told`` gets an error, or who leads then."""
        ready = (child for child in self._coordinator.processes() if child.is_ready)
        coordinator = next(ready, None)
        if coordinator is None:
            told(
                "the coordinator is not ready" if self._coordinator.group else "there is no section [leadership]", None
            )
            return
        number = next(self._numbers)
        self._asked[number] = coordinator, told
        self._roster.say(coordinator, LeadOrder(number))

    def note_end(self, child: Child) -> None:
        """Answer what a coordinator was asked that has ended."""
        for number in [number for number, (asked, _) in self._asked.items() if asked is child]:
            self._asked.pop(number)[1]("the coordinator has ended; ask again", None)


def _ignore(error: str, answer: Any) -> None:
    pass
