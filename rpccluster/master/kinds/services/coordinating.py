"""The coordinator as its master sees it, and what the two say to each other. Runs in the master.

The coordinator shows on the page of the lead whether this cluster leads. It is watched more closely than others: one
that does not come round to its store is killed, so early that its successor renews the lease before that ends.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from rpccluster.child.own_code import OwnCode
from rpccluster.ipc.messages import LeadOrder, LeadTold, Message, Present
from rpccluster.ipc.scoreboard import CoordinatorCell
from rpccluster.leading.registry import SERVING
from rpccluster.log import logger
from rpccluster.master.children.child import Child, ChildState
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.services.own_service import OwnService
from rpccluster.master.resources.service_listeners import LEADERSHIP

__all__ = ["Coordinating", "CoordinatorService"]

SILENT_SHARE = 4  # of a session, after which a coordinator is killed
LEAST_SILENCE = 0.5
_PATIENCE_SECONDS = 2.0  # without a ready worker, before the registry lists the cluster no longer

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

    def __init__(
        self, cluster: Cluster, coordinator: OwnService, roster: Roster, now: Callable[[], float], started_at: float
    ) -> None:
        """``started_at`` is when the cluster has started, in seconds of the epoch."""
        self._now = now
        self._cluster = cluster
        self._coordinator = coordinator
        self._roster = roster
        self._started_at = started_at
        self._told = ""  # the state in which the coordinator shows this cluster in the registry
        self._served_at = -math.inf  # when a worker was ready last
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[Child, Told]] = {}
        #: When `turn` must be called if nothing happens before (monotonic seconds).
        self.wake_at = math.inf

    def introduce(self, groups: Groups) -> None:
        """Tell a coordinator that has just become ready what it needs."""
        if not self._is_told_by_another():
            self._tell(self._state(groups))

    def turn(self, groups: Groups) -> None:
        """Tell it whether the registry shall list this cluster, when that has changed."""
        if self._is_told_by_another():
            self.wake_at = math.inf
            return
        state = self._state(groups)
        if state != self._told:
            self._tell(state)

    def _is_told_by_another(self) -> bool:
        """Return whether another master of this cluster, in an upgrade, is the one who tells it."""
        return self._cluster.phase.allows.hands_over or self._cluster.phase.allows.needs_all_children

    def _state(self, groups: Groups) -> str:
        """Return the state in which the registry lists this cluster; empty if it lists it not.

        It serves while a worker is ready, and a little longer, so that one that is replaced makes no news.
        """
        workers = groups.named("workers")
        self.wake_at = math.inf
        if workers is None or workers.unled or not self._cluster.phase.allows.is_listed:
            return ""
        if workers.ready():
            self._served_at = self._now()
            return SERVING
        if not self._told or self._now() - self._served_at >= _PATIENCE_SECONDS:
            return ""
        self.wake_at = self._served_at + _PATIENCE_SECONDS
        return self._told

    def _tell(self, state: str) -> None:
        coordinator = self._present()
        if coordinator is not None:
            self._told = state
            self._roster.say(coordinator, Present(state, self._started_at))

    def drain_seconds(self) -> float:
        """Return for how long a stop waits, so that clients hear by the registry that this cluster goes."""
        own = self._cluster.configuration.others.get(LEADERSHIP)
        return float(getattr(own, "drain_delay", 0.0)) if self._told and self._present() is not None else 0.0

    def _present(self) -> Child | None:
        return next((child for child in self._coordinator.processes() if child.is_ready), None)

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
        coordinator = self._present()
        if coordinator is None:
            told(
                "the coordinator is not ready" if self._coordinator.group else "there is no section [leadership]", None
            )
            return
        number = next(self._numbers)
        self._asked[number] = coordinator, told
        self._roster.say(coordinator, LeadOrder(number))

    def note_end(self, child: Child) -> None:
        """Answer what a coordinator was asked that has ended; the next one is told everything."""
        for number in [number for number, (asked, _) in self._asked.items() if asked is child]:
            self._asked.pop(number)[1]("the coordinator has ended; ask again", None)


def _ignore(error: str, answer: Any) -> None:
    pass
