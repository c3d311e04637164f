"""The groups of pools: made of their sections of the configuration, and given other options. Runs in the master.

`rpccluster.master.kinds.tasks.task` has the processes; the policy starts, replaces and ends them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rpccluster.config.sections.pool import PoolOptions, with_cluster
from rpccluster.live_settings import Given
from rpccluster.log import LogFiles
from rpccluster.master.children.group import Group
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.filled import Filled
from rpccluster.master.kinds.tasks.process import TaskProcess
from rpccluster.master.kinds.tasks.task import Task
from rpccluster.master.resources.service_listeners import POOLS

__all__ = ["PoolSection", "adjust", "pool_group", "revise"]


@dataclass(eq=False)
class PoolSection:
    """A section ``[pool:NAME]`` in force. ``own`` are the options that it gives itself."""

    name: str
    own: PoolOptions
    cluster: Cluster
    generation: int = 1
    staged: None = None  # a new edition is proved by no process
    _filled: Filled[PoolOptions] = field(default_factory=lambda: Filled(with_cluster))

    @property
    def options(self) -> PoolOptions:
        """The options in force, with what the pool has from ``[cluster]``."""
        return self._filled.options(self.own, self.cluster.options)

    @property
    def logs(self) -> LogFiles:
        """The cluster's log."""
        return self.cluster.logs

    @property
    def settings(self) -> Given:
        """The settings in force."""
        return self.cluster.settings

    @property
    def settings_version(self) -> int:
        """Their number."""
        return self.cluster.settings_version


def pool_group(header: str, own: PoolOptions, cluster: Cluster, kind: Task) -> Group:
    """Make the group of the section ``header``, which has the options ``own``."""
    name = header.partition(":")[2]
    group = Group(header, kind, PoolSection(name, own, cluster), cluster.phase)
    group.noun, group.counts_at_start, group.runs_the_service = f"{kind.noun} {name}", False, True
    group.after, group.comes_first = (POOLS,), True
    _apply(group, own)
    return group


def adjust(group: Group, own: PoolOptions, now: float) -> None:
    """Give a pool's group other options that its processes need not know."""
    section: Any = group.section
    section.own = own
    _apply(group, own)
    for child in group.children:
        if isinstance(child, TaskProcess):
            child.limit_tasks(own)
    group.forgive_pauses(now)


def revise(group: Group, own: PoolOptions, now: float) -> None:
    """Give a pool's group other options; the policy then replaces its processes one by one."""
    group.section.generation += 1  # type: ignore[misc]
    adjust(group, own, now)
    group.roll(now)


def _apply(group: Group, own: PoolOptions) -> None:
    group.wanted = own.processes
    group.spare = own.spare
    group.needs_lead = own.leader_only
