"""The groups of plugins: made of their sections of the configuration, and given other options. Runs in the master.

`rpccluster.master.kinds.plugins.plugin` has the processes; the policy starts, replaces and ends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rpccluster.config.sections.plugin import PluginOptions, with_cluster
from rpccluster.live_settings import Given
from rpccluster.log import LogFiles
from rpccluster.master.children.group import Group, Overlap, Restart
from rpccluster.master.children.schedule import Schedule, Timetable
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.filled import Filled
from rpccluster.master.kinds.plugins.output import PluginOutput
from rpccluster.master.kinds.plugins.plugin import Plugin, PluginProcess
from rpccluster.master.resources.listeners import Listener
from rpccluster.system.clock import time_zone

__all__ = ["NO_AUTOSTART", "PluginSection", "adjust", "outputs_of", "plugin_group", "revise"]

NO_AUTOSTART = "autostart = false"  # why a group is stopped


@dataclass(eq=False)
class PluginSection:
    """A section ``[plugin:NAME]`` in force. ``own`` are the options that it gives itself."""

    name: str
    own: PluginOptions
    cluster: Cluster
    output: PluginOutput
    generation: int = 1
    processes: set[PluginProcess] = field(default_factory=set)  # that live, or are just being started
    staged: None = None  # a new edition is proved by no process
    _filled: Filled[PluginOptions] = field(default_factory=lambda: Filled(with_cluster))

    @property
    def options(self) -> PluginOptions:
        """The options in force, with what the plugin has from ``[cluster]``."""
        return self._filled.options(self.own, self.cluster.options)

    @property
    def listeners(self) -> list[Listener]:
        """The listeners that a process inherits."""
        return self.cluster.plugin_listeners.get(f"plugin:{self.name}", [])

    @property
    def logs(self) -> LogFiles:
        """The cluster's log."""
        return self.cluster.logs

    @property
    def settings(self) -> Given:
        """The settings in force."""
        return self.cluster.settings

    def listener_names(self) -> list[str]:
        """Return the name of each listener, as LISTEN_FDNAMES has it."""
        if len(self.listeners) == 1:
            return [self.name]
        return [f"{self.name}-{number}" for number in range(1, len(self.listeners) + 1)]


def plugin_group(header: str, own: PluginOptions, cluster: Cluster, kind: Plugin) -> Group:
    """Make the group of the section ``header``, which has the options ``own``."""
    name = header.partition(":")[2]
    output = PluginOutput(name, lambda: cluster.logs.outlet)
    section = PluginSection(name, own, cluster, output)
    group = Group(header, kind, section, cluster.phase)
    group.noun, group.counts_at_start = f"{kind.noun} {name}", False
    if not own.autostart:
        group.stopped = NO_AUTOSTART
    _apply(group, section)
    return group


def outputs_of(groups: Iterable[Group]) -> Iterator[PluginOutput]:
    """Yield the output of each plugin among ``groups``."""
    for group in groups:
        if isinstance(group.section, PluginSection):
            yield group.section.output


def adjust(group: Group, own: PluginOptions, now: float) -> None:
    """Give a plugin's group other options that its processes need not know."""
    section: Any = group.section
    section.own = own
    if own.autostart and group.stopped == NO_AUTOSTART:
        group.stopped = ""
    if Restart(own.restart) is not group.restart:
        group.finished.clear()  # those that have ended may be wanted again
    _apply(group, section)
    group.forgive_pauses(now)


def revise(group: Group, own: PluginOptions, now: float) -> None:
    """Give a plugin's group other options; the policy then replaces its processes one by one.

    A run of a schedule goes on to its end, and the next one has them.
    """
    was_scheduled = group.is_scheduled
    group.section.generation += 1  # type: ignore[misc]
    adjust(group, own, now)
    group.finished.clear()
    if not (was_scheduled and group.is_scheduled):
        group.roll(now)


def _apply(group: Group, section: PluginSection) -> None:
    own = section.own
    group.description = own.description
    group.wanted = own.processes
    group.after = own.after
    group.restart = Restart(own.restart)
    group.overlap = Overlap.PREDECESSOR_FIRST if own.overlap == "none" else Overlap.SUCCESSOR_FIRST
    group.is_essential = own.essential
    group.needs_lead = own.leader_only
    group.timetable = _timetable(own, group.timetable)
    section.output.lead_to(section.options)


def _timetable(own: PluginOptions, present: Timetable | None) -> Timetable | None:
    """Return the timetable of these options; the present one if it is the same, since it knows what has run."""
    if not own.schedule:
        return None
    schedule = Schedule(own.schedule, time_zone(own.timezone))
    is_same = present is not None and vars(present.schedule) == vars(schedule)
    return present if is_same else Timetable(schedule)
