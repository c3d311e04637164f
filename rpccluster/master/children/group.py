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
from rpccluster.master.children.child import HUNG, LATE, MOVING_SECONDS, Birth, Child, ChildState, Edition, Options
from rpccluster.master.children.deaths import (
    EARLY_SECONDS,
    KEPT_DEATHS,
    Death,
    failures_in_a_row,
    has_failed_too_often,
    in_short,
    start_at,
)
from rpccluster.master.children.schedule import Timetable
from rpccluster.master.phases import Phase
from rpccluster.system import Exit

__all__ = ["Group", "Kind", "Overlap", "Restart", "Section"]


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


class Restart(enum.Enum):
    """Which ends of its own a child's slot is filled again after."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"

    def wants_no_more(self, death: Death) -> bool:
        """Return whether nothing is to follow ``death``, which nobody has asked for."""
        return self is Restart.NEVER or (self is Restart.ON_FAILURE and death.is_clean)


@dataclass(eq=False)
class Group:
    """The children of one section. Times are monotonic seconds."""

    name: str
    kind: Kind
    section: Section
    phase: Phase  # the phase of the master as it concerns this group: see `rpccluster.master.children.order`
    after: Sequence[str] = ()  # names of groups that must be ready before this one starts, and stop after it
    comes_first: bool = False  # others use it: it starts before all groups that do not come first, and stops after them
    stops_last: bool = False  # it waits for none and none for it, and it stops when all others have ended
    overlap: Overlap = Overlap.SUCCESSOR_FIRST
    noun: str = ""  # for a child in log lines and titles; the kind's, unless it has its own
    description: str = ""  # what it is for
    restart: Restart = Restart.ALWAYS
    is_essential: bool = False  # it stops the cluster when it fails too often
    timetable: Timetable | None = None  # its children start when a run is due, and only then
    counts_at_start: bool = True  # without one of its children the cluster does not start
    is_drained: bool = False  # drained by WINCH, which means the workers alone
    children: list[Child] = field(default_factory=list)
    wanted: int = 0
    spare: int = 0  # ready children beyond the wanted ones, which take the places of others
    stopped: str = ""  # why its children are not wanted, though the cluster is: it was stopped by hand
    needs_lead: bool = False  # it runs only where the cluster leads
    unled: str = ""  # why its children are not wanted now, if it needs the lead and the cluster has not got it
    is_theirs: bool = False  # the old master of an upgrade still has processes of it: none is started
    is_lent: bool = False  # the new master will ask for it: its processes stay, and none is started
    runs_the_service: bool = False  # its processes are replaced when the code of the service may be new
    is_removed: bool = False  # it has left the configuration, and is forgotten when its children have ended
    due: set[int] = field(default_factory=set)  # slots in which a scheduled run is due
    next_run_at: float = float("inf")  # of its schedule
    stop_by: float = float("inf")  # when the whole cluster must have ended
    finished: set[int] = field(default_factory=set)  # slots whose child has ended, and wants no successor
    held_by: Sequence[str] = ()  # what it waits for before its first start: groups of `after`
    has_begun: bool = False  # its first children were started, successfully or not
    is_awaited: bool = False  # calls or connections may still come to retiring children
    moves_until: float = float("-inf")  # until then connections are on their way, and their callers wait
    is_rolling: bool = False  # children of older generations are being replaced
    rolls_since: float = 0.0
    spawn_at: float = 0.0  # no start before then, because the system had no room for a process
    failure: str = ""  # why one of the first children, or the last one, could not boot
    failed_at: float = 0.0
    is_service_at_fault: bool = False  # whether the service is the cause of that failure
    deaths: dict[int, deque[Death]] = field(default_factory=dict)  # the last ones of each slot
    restarts: dict[int, int] = field(default_factory=dict)  # number of unasked ends in each slot
    forgiven_at: float = float("-inf")  # earlier deaths cost no pause

    def __post_init__(self) -> None:
        self.noun = self.noun or self.kind.noun

    def title_of(self, slot: int) -> str:
        """Return the words for the child of ``slot`` in its title."""
        return self.noun if self.noun != self.kind.noun else f"{self.noun} {slot}"

    @property
    def generation(self) -> int:
        """The generation of new children."""
        return self.section.generation

    @property
    def is_held(self) -> bool:
        """Whether it may not start yet."""
        return bool(self.held_by)

    @property
    def is_kept(self) -> bool:
        """Whether missing children are started and overdue ones replaced; a start holds up those that it depends on."""
        return self.phase.allows.starts_children or (self.phase.allows.is_starting and not self.counts_at_start)

    @property
    def options(self) -> Options:
        """The options in force."""
        options: Options = self.section.options
        return options

    @property
    def places(self) -> int:
        """The number of slots that have a child, those of spares included."""
        return self.wanted + self.spare

    def ready(self) -> list[Child]:
        """Return the children that serve."""
        return [child for child in self.children if child.is_ready]

    def is_settled(self) -> bool:
        """Return whether every wanted slot has a serving child or has finished, and no other child is left."""
        if not self.wants_children:
            return not self.children
        wanted, slots = set(range(self.places)), {child.slot for child in self.ready()}
        return wanted - self.finished <= slots <= wanted and {child.slot for child in self.children} == slots

    @property
    def is_scheduled(self) -> bool:
        """Whether its children run by a schedule, to their end."""
        return self.timetable is not None

    def note_due(self) -> None:
        """Note that a run of its schedule is due; a slot whose last run still goes on skips it."""
        if self.stopped or self.unled or self.is_held or not self.is_kept:
            return
        busy = {child.slot for child in self.children}
        for slot in range(self.wanted):
            if slot in busy:
                logger.warning("%s slot %d skips a run: the one before still goes on", _capital(self.noun), slot)
            else:
                self.due.add(slot)

    @property
    def wants_children(self) -> bool:
        """Whether all wanted slots shall have a child at any time."""
        return not (self.stopped or self.unled or self.is_removed or self.is_scheduled)

    def is_up(self) -> bool:
        """Return whether those that come after it need not wait: it serves, has done its work, or is not wanted."""
        allows = self.phase.allows
        is_drained = not (allows.wants_children or allows.ends_when_empty)
        if is_drained or not self.wants_children:
            return True
        return self.has_begun and {child.slot for child in self.ready()} | self.finished >= set(range(self.wanted))

    def vacant_slots(self) -> Sequence[int]:
        """Return the slots that want a child if they have none."""
        if self.is_scheduled:
            return sorted(slot for slot in self.due if slot < self.wanted)
        return [slot for slot in range(self.places) if slot not in self.finished]

    def is_booting(self) -> bool:
        """Return whether a child is booting."""
        return any(child.state is ChildState.BOOTING for child in self.children)

    def note_moving(self, now: float, *, is_moving: bool) -> None:
        """Note whether connections are on their way; one that waits for longer holds up nothing."""
        if not is_moving:
            self.moves_until = float("-inf")
        elif self.moves_until == float("-inf"):
            self.moves_until = now + MOVING_SECONDS

    # -- replacing older generations

    def roll(self, now: float) -> None:
        """Replace the children of older generations from now on."""
        self.is_rolling, self.rolls_since = True, now

    def has_rolled(self) -> bool:
        """Return whether all wanted children serve, and none of an older generation is left to replace."""
        if self.unled:
            return not self.children
        is_new = all(child.generation == self.generation for child in self.children if child.is_holding)
        return is_new and len(self.ready()) >= self.places

    def is_candidate(self, child: Child) -> bool:
        """Return whether ``child`` is the one in which the staged edition proves itself."""
        return self.section.staged is not None and child.edition is self.section.staged

    def candidate(self) -> Child | None:
        """Return the child in which the staged edition proves itself; None if there is none."""
        return next((child for child in self.children if self.is_candidate(child)), None)

    # -- deaths

    def forgive_pauses(self, now: float) -> None:
        """Start the next children at once, since the cause of earlier deaths may be mended."""
        self.forgiven_at = now

    def forgive(self, now: float) -> None:
        """Start the next children at once, also where the last one has done its work."""
        self.forgive_pauses(now)
        self.finished.clear()

    def fails_too_often(self, now: float) -> bool:
        """Return whether it is essential, and has failed so often that the cluster stops."""
        deaths = (death for deaths in self.deaths.values() for death in deaths if death.at > self.forgiven_at)
        return self.is_essential and has_failed_too_often(deaths, now)

    def tell_ready(self, child: Child) -> None:
        """Log that ``child`` is ready."""
        logger.info("%s ready (pid: %d, slot: %d)", _capital(self.noun), child.pid, child.slot)

    def note_end(self, child: Child, exit_: Exit, now: float) -> Death:
        """Note and log that ``child`` has ended, after all its messages have come. Returns its death."""
        self.children.remove(child)
        was_asked = child.is_expected_to_end or self.phase.allows.ends_when_empty
        reason = (child.retire_reason or child.kill_reason or str(exit_)) if was_asked else _reason(child, exit_)
        is_at_fault = child.kill_reason in (HUNG, LATE)
        death = Death(
            exit_,
            child.booted_at,
            child.ready_at,
            now,
            in_short(reason),
            was_asked=was_asked,
            was_at_fault=is_at_fault,
            was_at_work=child.is_at_work,
        )
        self.deaths.setdefault(child.slot, deque(maxlen=KEPT_DEATHS)).append(death)
        if was_asked:
            logger.info("%s exiting (pid: %d)", _capital(self.noun), child.pid)
            return death
        self._tell_end(child, death, reason)
        if not self.is_scheduled:
            self._prepare_next(child.slot, death)
        was_up = child.ready_at is not None or (death.is_clean and (child.slot in self.finished or self.is_scheduled))
        is_present = child.generation >= self.generation  # one of other options says nothing of the present ones
        if is_present and (not was_up or self.phase.allows.needs_all_children):
            self.failure, self.failed_at, self.is_service_at_fault = reason, now, child.is_service_at_fault
        return death

    def _tell_end(self, child: Child, death: Death, reason: str) -> None:
        who = (_capital(self.noun), child.pid, child.slot)
        if child.may_end and death.is_clean:
            logger.info("%s (pid: %d, slot: %d) has ended: %s", *who, death.exit)
        elif child.ready_at is not None:
            logger.error("%s (pid: %d, slot: %d) died: %s", *who, reason)
        elif reason == self.failure and self.phase.allows.is_starting:
            logger.info("%s (pid: %d, slot: %d) could not boot for the same reason", *who)  # one traceback will do
        else:
            logger.error("%s (pid: %d, slot: %d) could not boot: %s", *who, reason)

    def _prepare_next(self, slot: int, death: Death) -> None:
        is_filled = any(child.slot == slot and child.is_holding for child in self.children)  # by its predecessor
        if self.restart.wants_no_more(death) and not is_filled:
            self.finished.add(slot)
            return
        self.restarts[slot] = self.restarts.get(slot, 0) + 1
        pause = self.start_at(slot, death.at) - death.at
        if pause > 0 and death.is_failure:
            in_a_row = failures_in_a_row(self._counted(slot), self._survivor_booted_at(slot, death.at))
            told = "%s slot %d died %d times in a row (last: %s): restarting it in %g seconds"
            logger.error(told, _capital(self.noun), slot, len(in_a_row), death.exit, pause)

    def start_at(self, slot: int, now: float) -> float:
        """Return when the next child of ``slot`` may start; minus infinity if at once."""
        if self.is_scheduled:
            return float("-inf")
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


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _reason(child: Child, exit_: Exit) -> str:
    if child.last_words:
        return child.last_words
    return {HUNG: "it hung", LATE: f"it was not ready within {child.ready_option}"}.get(child.kill_reason, str(exit_))
