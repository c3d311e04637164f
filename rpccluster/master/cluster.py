"""The master's data about its cluster: configuration, phase, generation, listeners. Data alone. Runs in the master.

`rpccluster.master.control.status` shows it. The processes are in groups (`rpccluster.master.children.group`), which
read here what a new process gets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rpccluster.config.configuration import Configuration
from rpccluster.config.sections.cluster import Options
from rpccluster.leading.page import LeadPage
from rpccluster.live_settings import Given
from rpccluster.log import LogFiles
from rpccluster.master.counts import Counts
from rpccluster.master.history import History
from rpccluster.master.phases import FIRST, Event, Phase, next_phase
from rpccluster.system import Activation

if TYPE_CHECKING:
    from rpccluster.master.resources.listeners import Listener

__all__ = ["Cluster", "Staged", "is_led_whole"]


@dataclass(eq=False)
class Staged:
    """A reload that has not proved itself: the configuration and files of its first worker."""

    configuration: Configuration
    generation: int
    listeners: list[Listener]
    logs: LogFiles
    plugin_listeners: dict[str, list[Listener]] = field(default_factory=dict)
    settings_version: int = 1

    @property
    def options(self) -> Options:
        """The options of the staged configuration."""
        return self.configuration.options

    @property
    def settings(self) -> Given:
        """The settings of the staged configuration."""
        return self.configuration.settings(self.settings_version)


def is_led_whole(configuration: Configuration) -> bool:
    """Return whether only the leader of several clusters with this configuration serves at all."""
    return getattr(configuration.others.get("leadership"), "scope", "") == "cluster"


@dataclass(eq=False)
class Cluster:
    """The cluster as its master sees it. Times are monotonic seconds."""

    configuration: Configuration
    generation: int
    listeners: list[Listener]
    logs: LogFiles
    started_at: float
    phase: Phase = FIRST
    staged: Staged | None = None
    has_old_master: bool = False  # it lives, and may give more connections
    activation: Activation = field(default_factory=Activation)
    plugin_listeners: dict[str, list[Listener]] = field(default_factory=dict)  # by the header of the plugin's section
    settings_version: int = 1
    history: History = field(default_factory=History)
    lead: LeadPage = field(default_factory=LeadPage)  # whether this cluster leads, for all of its processes
    counts: Counts = field(default_factory=Counts)

    @property
    def options(self) -> Options:
        """The options in force."""
        return self.configuration.options

    @property
    def settings(self) -> Given:
        """The settings in force."""
        return self.configuration.settings(self.settings_version)

    @property
    def unled(self) -> str:
        """Why this cluster does not lead; empty if it does."""
        if self.lead.is_leading:
            return ""
        address = self.lead.leader().address
        return f"the lead is at {address}" if address else "nobody leads"

    @property
    def is_standby(self) -> bool:
        """Whether it keeps its listeners closed, since it does not lead."""
        return bool(is_led_whole(self.configuration) and self.unled)

    @property
    def title(self) -> str:
        """The master's process title; the contract fixes its form."""
        return f"rpccluster: master [{self.options.proc_name}]"

    @property
    def summary(self) -> str:
        """One line on what this cluster does; systemctl shows it."""
        addresses = ", ".join(str(listener.actual) for listener in self.listeners)
        return f"Serving{' at ' if addresses else ''}{addresses} (generation {self.generation})"

    def note(self, event: Event) -> bool:
        """Go to the phase that follows from ``event``. Returns whether the phase has changed.

        Raises `IllegalTransition` and changes nothing if ``event`` cannot happen now.
        """
        before, self.phase = self.phase, next_phase(self.phase, event)
        return self.phase is not before
