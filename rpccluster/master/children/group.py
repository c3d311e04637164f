"""A group: the children of one section of the configuration, how many are wanted, and how earlier ones ended.

Data, and conclusions from it alone; `rpccluster.master.children.policy` decides what to do. Runs in the master.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rpccluster.child.assignment import KindPart
from rpccluster.log import logger
from rpccluster.master.children.child import HUNG, Birth, Child, ChildState, Edition, Options
from rpccluster.master.children.deaths import EARLY_SECONDS, KEPT_DEATHS, Death, failures_in_a_row, in_short, start_at
from rpccluster.master.phases import Phase
from rpccluster.system import Exit

__all__ = ["Group", "Kind", "Overlap", "Section"]


class Kind(Protocol):
    """The part of a kind that a group needs; `rpccluster.master.kinds.kind` has the whole protocol."""

    name: str  # as ``status`` shows it
    noun: str  # the word for a child in log lines

    def equip(self, birth: Birth) -> tuple[Child, KindPart]: ...


class Section(Edition, Protocol):
    """A section of the configuration in force; ``staged`` is its next edition, which has not proved itself."""

    @property
    def staged(self) -> Edition | None: ...


class Overlap(enum.Enum):
    """The order in which two processes of a slot replace each other."""

    SUCCESSOR_FIRST = "the successor is ready before its predecessor goes"
    PREDECESSOR_FIRST = (
        "the predecessor has ended before its successor starts"  # for a resource that only one process can hold
    )


@dataclass(eq=False)
class Group:
    """The children of one section. Times are monotonic seconds."""

    name: str
    kind: Kind
    section: Section
    phase: Phase  # the phase of the master as it concerns this group: see `rpccluster.master.children.order`
    after: Sequence[str] = ()  # names of groups that must be ready before this one starts, and stop after it
    overlap: Overlap = Overlap.SUCCESSOR_FIRST
    is_drained: bool = False  # drained by WINCH, which means the workers alone
    children: list[Child] = field(default_factory=list)
    wanted: int = 0
    is_held: bool = False  # it waits for the groups of `after`
    has_begun: bool = False  # its first children were started, successfully or not
    is_awaited: bool = False  # calls or connections may still come to retiring children
    is_rolling: bool = False  # children of older generations are being replaced
    rolls_since: float = 0.0
    spawn_at: float = 0.0  # no start before then, because the system had no room for a process
    failure: str = ""  # why one of the first children, or the last one, could not boot
    failed_at: float = 0.0
    is_service_at_fault: bool = False  # whether the service is the cause of that failure
    deaths: dict[int, deque[Death]] = field(default_factory=dict)  # the last ones of each slot
    restarts: dict[int, int] = field(default_factory=dict)  # number of unasked ends in each slot
    forgiven_at: float = float("-inf")  # earlier deaths cost no pause

    @property
    def generation(self) -> int:
        """The generation of new children."""
        return self.section.generation

    @property
    def options(self) -> Options:
        """The options in force."""
        options: Options = self.section.options
        return options

    def ready(self) -> list[Child]:
        """Return the children that serve."""
        return [child for child in self.children if child.is_ready]

    def is_settled(self) -> bool:
        """Return whether every wanted slot has a serving child, and no other child is left."""
        slots = {child.slot for child in self.ready()}
        return slots == set(range(self.wanted)) == slots | {child.slot for child in self.children}

    def is_booting(self) -> bool:
        """Return whether a child is booting."""
        return any(child.state is ChildState.BOOTING for child in self.children)

    # -- replacing older generations

    def roll(self, now: float) -> None:
        """Replace the children of older generations from now on."""
        self.is_rolling, self.rolls_since = True, now

    def has_rolled(self) -> bool:
        """Return whether all wanted children serve, and none of an older generation is left to replace."""
        is_new = all(child.generation == self.generation for child in self.children if child.is_holding)
        return is_new and len(self.ready()) >= self.wanted

    def is_candidate(self, child: Child) -> bool:
        """Return whether ``child`` is the one in which the staged edition proves itself."""
        return self.section.staged is not None and child.edition is self.section.staged

    def candidate(self) -> Child | None:
        """Return the child in which the staged edition proves itself; None if there is none."""
        return next((child for child in self.children if self.is_candidate(child)), None)

    # -- deaths

    def forgive(self, now: float) -> None:
        """Start the next children at once, since the cause of earlier deaths may be mended."""
        self.forgiven_at = now

    def note_end(self, child: Child, exit_: Exit, now: float) -> Death:
        """Note and log that ``child`` has ended, after all its messages have come. Returns its death."""
        self.children.remove(child)
        was_asked = child.is_expected_to_end or self.phase.allows.ends_when_empty
        reason = (child.retire_reason or child.kill_reason or str(exit_)) if was_asked else _reason(child, exit_)
        death = Death(exit_, child.booted_at, child.ready_at, now, in_short(reason), was_asked)
        self.deaths.setdefault(child.slot, deque(maxlen=KEPT_DEATHS)).append(death)
        if was_asked:
            logger.info("%s exiting (pid: %d)", self.kind.noun.capitalize(), child.pid)
            return death
        self.restarts[child.slot] = self.restarts.get(child.slot, 0) + 1
        what = "could not boot" if child.ready_at is None else "died"
        logger.error("%s (pid: %d, slot: %d) %s: %s", self.kind.noun.capitalize(), child.pid, child.slot, what, reason)
        if child.ready_at is None or self.phase.allows.needs_all_children:
            self.failure, self.failed_at, self.is_service_at_fault = reason, now, child.is_service_at_fault
        self._tell_pause(child.slot, death)
        return death

    def _tell_pause(self, slot: int, death: Death) -> None:
        pause = self.start_at(slot, death.at) - death.at
        if pause > 0 and death.is_failure:
            in_a_row = failures_in_a_row(self._counted(slot), self._survivor_booted_at(slot, death.at))
            told = "%s slot %d died %d times in a row (last: %s): restarting it in %g seconds"
            logger.error(told, self.kind.noun.capitalize(), slot, len(in_a_row), death.exit, pause)

    def start_at(self, slot: int, now: float) -> float:
        """Return when the next child of ``slot`` may start; minus infinity if at once."""
        options, deaths = self.options, self.deaths.get(slot)
        if not deaths or deaths[-1].at + options.restart_delay_max <= now:
            return float("-inf")  # no pause lasts longer; the policy asks for many slots in each turn
        survivor = self._survivor_booted_at(slot, now)
        return start_at(self._counted(slot), options.restart_delay, options.restart_delay_max, survivor)

    def _counted(self, slot: int) -> list[Death]:
        return [death for death in self.deaths.get(slot, ()) if death.at > self.forgiven_at]

    def _survivor_booted_at(self, slot: int, now: float) -> float:
        """Return the start of the youngest living child of ``slot`` that was ready for `EARLY_SECONDS`."""
        survivors = (
            child.booted_at
            for child in self.children
            if child.slot == slot and child.ready_at is not None and now - child.ready_at >= EARLY_SECONDS
        )
        return max(survivors, default=float("-inf"))


def _reason(child: Child, exit_: Exit) -> str:
    if child.last_words:
        return child.last_words
    return "it hung" if child.kill_reason == HUNG else str(exit_)
