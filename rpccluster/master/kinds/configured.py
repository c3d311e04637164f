"""Groups of any kind from the sections of the configuration, and other options for them. Runs in the master.

The one place that knows which kind a section's processes have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from rpccluster.config.sections.leadership import LeadershipOptions
from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.config.sections.pool import PoolOptions
from rpccluster.config.sections.queues import QueuesOptions
from rpccluster.config.sections.web import MetricsOptions, WebOptions
from rpccluster.master.children.group import Group
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.kind import Kind
from rpccluster.master.kinds.plugins import groups as plugin_groups
from rpccluster.master.kinds.plugins.plugin import Plugin
from rpccluster.master.kinds.services import own_service
from rpccluster.master.kinds.tasks import groups as pool_groups
from rpccluster.master.kinds.tasks.task import Task

__all__ = ["adjust", "has_group", "make_group", "revise", "take_back"]

_OF_SERVICES = (
    LeadershipOptions,
    MetricsOptions,
    QueuesOptions,
    WebOptions,
)  # of services, whose groups come by `services_of`


def has_group(own: object) -> bool:
    """Return whether a section with the options ``own`` has processes of its own."""
    return isinstance(own, (PluginOptions, PoolOptions))


def make_group(header: str, own: Any, cluster: Cluster, kinds: Mapping[str, Kind]) -> Group:
    """Make the group of the section ``header``, which has the options ``own``."""
    if isinstance(own, PoolOptions):
        return pool_groups.pool_group(header, own, cluster, cast(Task, kinds[Task.name]))
    return plugin_groups.plugin_group(header, own, cluster, cast(Plugin, kinds[Plugin.name]))


def adjust(group: Group, own: Any, now: float) -> None:
    """Give a group other options that its processes need not know, or hear of."""
    if isinstance(own, _OF_SERVICES):
        own_service.adjust(group, now)
    else:
        (pool_groups if isinstance(own, PoolOptions) else plugin_groups).adjust(group, own, now)


def revise(group: Group, own: Any, now: float) -> None:
    """Give a group other options; the policy then replaces its processes one by one."""
    if isinstance(own, _OF_SERVICES):
        own_service.revise(group, now)
    else:
        (pool_groups if isinstance(own, PoolOptions) else plugin_groups).revise(group, own, now)


def take_back(group: Group, own: Any, now: float) -> None:
    """Give a group the options of its section, which has come back."""
    if isinstance(own, PluginOptions):
        group.stopped = "" if own.autostart else plugin_groups.NO_AUTOSTART
    revise(group, own, now)
