"""Services of the package's own: one process each, on the engine of the workers, that other processes use. Runs in the
master.

`rpccluster.services` is the code of the processes. A kind here makes the group of one: its section, which derives its
options from ``[cluster]``. The methods, the channel and the counters are those of an RPC worker. A broker of its own
(`rpccluster.master.handover`) holds the connections of a process until its successor serves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Protocol

from rpccluster.child.assignment import RPCPart
from rpccluster.child.own_code import OwnCode
from rpccluster.config.configuration import Configuration
from rpccluster.config.kept_queues import kept_queues
from rpccluster.config.sections.cluster import Options
from rpccluster.config.sections.leadership import LeadershipOptions, with_cluster
from rpccluster.config.sections.web import METRICS, Sites
from rpccluster.ipc.fdpass import memory_file
from rpccluster.ipc.messages import AskMaster, KillTask, LeadTold
from rpccluster.ipc.packets import Passing, close_all
from rpccluster.live_settings import Given
from rpccluster.log import LogFiles
from rpccluster.master.children.child import Birth, Child
from rpccluster.master.children.group import Group, Overlap
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.kind import KindEvent, Told
from rpccluster.master.kinds.rpc import RPC, RPCWorker
from rpccluster.master.resources.listeners import Listener
from rpccluster.master.resources.service_listeners import LEADERSHIP, POOLS, QUEUES, WEB

__all__ = [
    "KINDS",
    "Conversation",
    "OwnService",
    "ServiceProcess",
    "ServiceSection",
    "adjust",
    "revise",
    "sections_of",
    "service_group",
]

#: The kind of each service's group.
KINDS = {QUEUES: "keeper", LEADERSHIP: "coordinator", POOLS: "dispatcher", WEB: "web"}
#: The sections whose change replaces the process of a group; for others the one of its name.
_SECTIONS = {WEB: (WEB, METRICS.name)}

MOST_PENDING = 32768  # unanswered calls of one connection
MOST_MESSAGE_BYTES = 1 << 30
MOST_CONNECTIONS = 1 << 16


def _leadership(configuration: Configuration) -> LeadershipOptions:
    options: LeadershipOptions = configuration.others[LEADERSHIP]
    return with_cluster(options, configuration.options)


#: What the process of a group has from sections of its own.
_OWN: Mapping[str, Callable[[Configuration], Any]] = {
    QUEUES: kept_queues,
    LEADERSHIP: _leadership,
    WEB: lambda configuration: Sites.of(configuration.others),
}
#: Options that the section of a service has instead of those of ``[cluster]``.
_INSTEAD = ("max_pending_calls", "max_message_size", "restart_delay", "restart_delay_max")


class Conversation(Protocol):
    """What the master and a service say to each other about the service's own subject."""

    def introduce(self, groups: Any) -> None:
        """Tell a process that has just become ready what it must know; ``groups`` are all of the cluster."""

    def turn(self, groups: Any) -> None:
        """Tell it what has changed."""

    def hear(self, message: Any, groups: Any) -> None:
        """Take a message of the process."""

    def note_end(self, child: Child) -> None:
        """Note that a child has ended, of whatever kind."""


class ServiceProcess(RPCWorker):
    """The process of a service, as its master sees it. It has no vote on settings."""

    reads_settings = False
    accepts_more = True  # at a listener that was bound again while it runs


@dataclass(eq=False)
class ServiceSection:
    """The options of a service, derived from those of the cluster; a section of its own may say more."""

    group: str
    cluster: Cluster
    generation: int = 1
    staged: None = None  # a new edition is proved by no process
    _derived: tuple[Configuration, Options] | None = field(default=None, repr=False)

    @property
    def options(self) -> Options:
        """The options in force."""
        derived, configuration = self._derived, self.cluster.configuration
        if derived is None or derived[0] is not configuration:
            self._derived = derived = (configuration, _derive(configuration, self.group))
        return derived[1]

    @property
    def own(self) -> Any:
        """What its process has from sections of its own; None if there are none."""
        read = _OWN.get(self.group)
        return None if read is None else read(self.cluster.configuration)

    @property
    def listeners(self) -> list[Listener]:
        """The listeners that its process inherits."""
        return self.cluster.plugin_listeners.get(self.group, [])

    @property
    def logs(self) -> LogFiles:
        """The cluster's log."""
        return self.cluster.logs

    @property
    def settings(self) -> Given:
        """The settings in force."""
        return self.cluster.settings


def sections_of(group: str) -> tuple[str, ...]:
    """Return the headers of the sections whose change concerns the process of a service."""
    return _SECTIONS.get(group, (group,))


def _derive(configuration: Configuration, group: str) -> Options:
    """Return the options of a service: no limit that is meant for the calls of a user's service."""
    options, others = configuration.options, configuration.others
    own = next((others[header] for header in sections_of(group) if header in others), None)
    derived = replace(
        options,
        service="",
        expose="public",
        accept_lock=False,
        cpu_affinity=type(options)().cpu_affinity,
        reload_code=False,
        max_requests=0,
        max_memory=0,
        max_lifetime=0.0,
        call_timeout=0.0,
        max_pending_calls=MOST_PENDING,
        max_message_size=MOST_MESSAGE_BYTES,
        worker_connections=MOST_CONNECTIONS,
        idle_timeout=0.0,
        access_log="off",
    )
    return replace(derived, **{name: getattr(own, name) for name in _INSTEAD if hasattr(own, name)})


class OwnService(RPC):
    """The kind of one service's process; a `rpccluster.master.kinds.kind.Kind`."""

    _child = ServiceProcess

    def __init__(self, name: str, own_code: OwnCode | None) -> None:
        """``name`` is the kind's."""
        super().__init__(own_code, has_lock=False)
        self.name = self.noun = name
        self.group: Group | None = None
        self.memory = -1  # a file that outlives the process, for what its successor must know
        self.on_forgotten: Callable[[], object] = list  # called when its group has left the configuration and ended

    def inherit(self, memories: Mapping[str, int]) -> None:
        """Take what the service of an old master has left, by the kinds."""
        self.memory = memories.get(self.name, -1)

    def equip(self, birth: Birth) -> tuple[RPCWorker, RPCPart]:
        if self.memory < 0:
            self.memory = memory_file(name=self.name)
        child, part = super().equip(birth)
        child.kind = self.name
        edition: Any = birth.edition
        return child, replace(part, memory=self.memory, own=edition.own)

    def hear(self, child: Child, message: Passing, descriptors: list[int], now: float) -> KindEvent | None:
        if isinstance(message, (AskMaster, KillTask, LeadTold)):
            close_all(descriptors)
            return Told(child, message)
        return super().hear(child, message, descriptors, now)

    def processes(self) -> list[RPCWorker]:
        """Return the processes between which connections may move."""
        children = self.group.children if self.group is not None else []
        return [child for child in children if isinstance(child, ServiceProcess)]

    def forget(self, group: Group) -> None:
        self.group = None
        if self.memory >= 0:
            os.close(self.memory)
            self.memory = -1
        self.on_forgotten()


def service_group(
    name: str, cluster: Cluster, kind: OwnService, *, overlap: Overlap = Overlap.PREDECESSOR_FIRST
) -> Group:
    """Make the group ``name`` of the one process of a service."""
    section: Any = ServiceSection(name, cluster)
    group = Group(name, kind, section, cluster.phase)
    group.counts_at_start, group.wanted = False, 1
    kind.group = group
    if name == WEB:  # it owns nothing that two could not have for a moment
        group.stops_last = True
        return group
    group.overlap, group.comes_first = overlap, True
    services = list(KINDS)
    group.after = services[: services.index(name)]  # those before it are ready when it starts, and stop after it
    return group


def adjust(group: Group, now: float) -> None:
    """Let the group of a service go on with other options that its process hears of, or need not know."""
    group.forgive_pauses(now)


def revise(group: Group, now: float) -> None:
    """Have the process of a service replaced, since its section has changed."""
    group.section.generation += 1  # type: ignore[misc]
    group.forgive_pauses(now)
    group.roll(now)
