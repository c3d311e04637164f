"""What the master knows of its cluster: configuration, phase, generation, listeners. Data alone. Runs in the master.

What is made of it stands elsewhere: `rpccluster.master.control.status` shows it, the processes are in groups
(`rpccluster.master.children.group`), which read here what a new one is born with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rpccluster.config.configuration import Configuration
from rpccluster.config.sections.cluster import Options
from rpccluster.log import LogFiles
from rpccluster.master.phases import Event, Phase, next_phase

if TYPE_CHECKING:
    from rpccluster.master.resources.listeners import Listener

__all__ = ["Cluster", "Staged"]


@dataclass(eq=False)
class Staged:
    """A reload that has yet to prove itself: what its first worker is born with."""

    configuration: Configuration
    generation: int
    listeners: list[Listener]
    logs: LogFiles

    @property
    def options(self) -> Options:
        """The options that would be in force."""
        return self.configuration.options


@dataclass(eq=False)
class Cluster:
    """The cluster as its master sees it. Times are monotonic seconds."""

    configuration: Configuration
    generation: int
    listeners: list[Listener]
    logs: LogFiles
    started_at: float
    phase: Phase = Phase.STARTING
    staged: Staged | None = None
    has_old_master: bool = False  # which lives, and may have more connections to give

    @property
    def options(self) -> Options:
        """The options in force."""
        return self.configuration.options

    @property
    def title(self) -> str:
        """The master's process title; the contract fixes its form."""
        return f"rpccluster: master [{self.options.proc_name}]"

    def note(self, event: Event) -> bool:
        """Go to the phase that follows from ``event``; returns whether that is another one.

        Raises `IllegalTransition` and changes nothing if ``event`` cannot happen now.
        """
        before, self.phase = self.phase, next_phase(self.phase, event)
        return self.phase is not before
