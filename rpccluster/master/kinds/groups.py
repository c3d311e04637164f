"""Runs all groups of one master: the messages of their children, their ends, and due actions. Runs in the master.

Joins the parts of `rpccluster.master.children` with the kinds. Events that concern others are returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Union

from rpccluster.master.children import order, policy
from rpccluster.master.children.actions import Actions
from rpccluster.master.children.child import Child, ChildState
from rpccluster.master.children.deaths import Death
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster, Said
from rpccluster.master.children.schedule import Timetable
from rpccluster.master.children.watch import Watch
from rpccluster.master.guard import Guard
from rpccluster.master.kinds.kind import Booted, Kind, KindEvent
from rpccluster.master.phases import Phase
from rpccluster.system import Exit, System

__all__ = ["Died", "Event", "Groups"]

CLOCK_SECONDS = 30.0  # between two looks at the clock, for schedules
REMOVED = "removed"  # why the children of a group end that has left the configuration


class Died(NamedTuple):
    """A child has ended."""

    group: Group
    child: Child
    death: Death


Event = Union[KindEvent, Died]


class Groups:
    """The groups of one master, in the order in which ``status`` shows them.

    ``wake_at`` is when `act` must be called if nothing happens before (monotonic seconds); infinity if only events
    count.
    """

    def __init__(
        self,
        system: System,
        guard: Guard,
        roster: Roster,
        actions: Actions,
        kinds: Mapping[str, Kind],
        groups: Iterable[Group],
    ) -> None:
        """``kinds`` maps names to the kinds of ``groups``."""
        self._system = system
        self._guard = guard
        self._roster = roster
        self._actions = actions
        self.kinds = kinds
        self.all = list(groups)
        self._watch = Watch()
        self._stop_by = float("inf")
        self.wake_at = float("inf")

    # -- which groups there are

    def named(self, name: str) -> Group | None:
        """Return the group of that name; None if there is none."""
        return next((group for group in self.all if group.name == name), None)

    def add(self, group: Group) -> None:
        """Run one group more from now on."""
        self.all.append(group)

    def remove(self, group: Group) -> None:
        """Stop a group that has left the configuration; it is forgotten when its children have ended."""
        group.is_removed = True
        group.stopped = REMOVED

    def take_back(self, group: Group) -> None:
        """Run a group that has not ended yet since it was removed, as if it were new."""
        group.is_removed = group.has_begun = False
        group.stopped = group.failure = ""
        self.all.remove(group)
        self.all.append(group)

    # -- collecting

    def collect(self) -> Iterator[Event]:
        """Yield the messages and the ends of children since the last call. Handle each before the next."""
        yield from self._hear()
        for group, child, exit_ in self._roster.reap():
            yield from self._hear()
            ended: list[Event] = []
            self._guard.attempt("note the end of a child", self._end, group, child, exit_, ended)
            yield from ended

    def _hear(self) -> Iterator[Event]:
        for said in self._roster.take_said():
            heard: list[Event] = []
            self._guard.attempt("heed what a child says", self._take, said, heard)
            yield from heard

    def _take(self, said: Said, heard: list[Event]) -> None:
        group, child, message, descriptors = said
        now = self._system.monotonic()
        event = self.kinds[group.kind.name].hear(child, message, descriptors, now)
        if isinstance(event, Booted):
            if child.state is not ChildState.BOOTING:
                return  # it was told to end meanwhile
            child.note_ready(now)
            group.tell_ready(child)
        if event is not None:
            heard.append(event)

    def _end(self, group: Group, child: Child, exit_: Exit, ended: list[Event]) -> None:
        child.exit = exit_
        death = group.note_end(child, exit_, self._system.monotonic())
        event = self.kinds[group.kind.name].note_end(child)
        ended += [event] if event is not None else []
        ended.append(Died(group, child, death))

    def excuse(self, now: float) -> None:
        """Count the children's silence only from ``now`` on, because the master itself has stood still."""
        for group in self.all:
            for child in group.children:
                child.excuse(now)

    # -- deciding and performing

    def tell(self, phase: Phase, graceful_seconds: float = float("inf"), unled: str = "") -> None:
        """Give each group its phase, and hold groups back that may not start yet, when the master is in ``phase``.

        A stop of the whole cluster may take ``graceful_seconds``. ``unled`` says why the cluster does not lead; it is
        empty where that does.
        """
        now = self._system.monotonic()
        if phase.allows.ends_when_empty and not phase.allows.hands_over:
            self._stop_by = min(self._stop_by, now + graceful_seconds)
        for group in self.all:
            group.stop_by = self._stop_by
            group.phase = order.phase_of(group, self.all, phase, is_late=now >= self._stop_by)
            group.unled = unled if group.needs_lead else ""
            group.held_by = () if group.has_begun else order.held_by(group, self.all, phase)

    def act(self) -> None:
        """Perform the due actions. Sets ``wake_at``: to now if something was done, which may make more due."""
        now, self.wake_at = self._system.monotonic(), self._roster.wake_at
        if now < self._stop_by:
            self.wake_at = min(self.wake_at, self._stop_by)
        for group in self.all:
            self._guard.attempt("look after a group", self._act_on, group, now)
        for group in [group for group in self.all if group.is_removed and not group.children]:
            self.all.remove(group)
            self._guard.attempt("forget a group", self.kinds[group.kind.name].forget, group)

    def _look_at_clock(self, group: Group, timetable: Timetable, now: float) -> None:
        """Note a run that is due, and when the next one is. The clock may be set meanwhile: look again soon."""
        utc = self._system.utc()
        if timetable.is_due(utc):
            group.note_due()
        left = timetable.seconds_left(utc)
        group.next_run_at = now + left
        self.wake_at = min(self.wake_at, now + min(left, CLOCK_SECONDS))

    def _act_on(self, group: Group, now: float) -> None:
        if group.timetable is not None:
            self._look_at_clock(group, group.timetable, now)
        kind = self.kinds[group.kind.name]  # if it fails, its processes are started and ended all the same
        self._guard.attempt("arrange a group", kind.arrange, group, now)
        self._guard.attempt("look at the processes of a group", self._look, group, kind, now)
        decision = policy.decide(group, now)
        for action in decision.actions:
            self._guard.attempt("do what is due", self._actions.perform, group, action)
        group.has_begun = (group.has_begun or not group.is_held) and not (group.unled and not group.children)
        wake_at = now if decision.actions else decision.wake_at
        if wake_at < self.wake_at:
            self.wake_at = wake_at

    def _look(self, group: Group, kind: Kind, now: float) -> None:
        wake_at = self._watch.turn(group, kind.look, now)
        if wake_at < self.wake_at:
            self.wake_at = wake_at

    def wake(self) -> None:
        """Have `act` called again at once, since something else is wanted now."""
        self.wake_at = float("-inf")

    def course(self, phase: Phase) -> order.Course | None:
        """Return what the state of all groups means for the master."""
        return order.course(self.all, phase)
