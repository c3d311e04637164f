"""A toy master that does what `decide` says, while workers read, refuse, stop, die and fill up: nothing is lost.

The toy turns when a message or an end would wake it, and at ``wake_at``; what stands on the scoreboard alone, such as
room and signs of life, changes behind its back. Time and workers are made up.
"""

from __future__ import annotations

import math
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rpccluster.master.children.child import ChildState
from rpccluster.master.handover.placement import (
    ALONE_SECONDS,
    WINDOW,
    Ask,
    Even,
    PassOn,
    Place,
    Situation,
    TakeBack,
    decide,
)
from rpccluster.master.handover.transit import Grants, Transit

from .made_up import MadeUpWorker, booting, ready, transit

LIMIT = 8
NUMBERS = st.integers(0, 11)


class Toy(RuleBasedStateMachine):
    """Workers, the connections between them, and everything that may befall these."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.wake_at = math.inf
        self.workers = [ready(3, limit=LIMIT), ready(0, limit=LIMIT), ready(5, limit=LIMIT)]
        self.transits: list[Transit] = []
        self.grants = Grants()
        self.asked: dict[MadeUpWorker, int] = {}
        self.left_alone: dict[Any, float] = {}
        self.is_uneven = False
        self.new_master_at: float | None = None
        self.stopped: set[MadeUpWorker] = set()  # they do not run: they read and say nothing
        self.read: set[Transit] = set()  # by its adopter, which has not spoken yet
        self.total = 8

    # -- what the broker does

    def turn(self) -> None:
        for _ in range(5):
            decision = decide(self.situation(), self.now)
            for action in decision.actions:
                self.perform(action)
            self.wake_at = decision.wake_at
            if self.wake_at > self.now:
                return
        raise AssertionError(f"it does not come to rest: {decision}")

    def situation(self) -> Situation:
        return Situation(
            workers=[*self.workers],
            transits=[*self.transits],
            grants=self.grants,
            left_alone=self.left_alone,
            new_master_at=self.new_master_at,
            is_uneven=self.is_uneven,
        )

    def perform(self, action: Any) -> None:
        if isinstance(action, Place):
            self.place(action.transit, action.adopter)
        elif isinstance(action, PassOn):
            assert action.transit.is_unplaced
            action.transit.is_with_new_master = True
        elif isinstance(action, TakeBack):
            self.take_back(action.adopter)
        elif isinstance(action, Ask):
            assert action.donor not in self.asked, "it was asked twice"
            self.grants.grant(action.donor, action.release)
            self.asked[action.donor] = action.release.number
        elif isinstance(action, Even):
            self.is_uneven = False

    def place(self, held: Transit, adopter: Any) -> None:
        assert held in self.transits
        assert held.is_unplaced, "it was placed twice"
        assert adopter in self.workers
        assert adopter.room > 0, "it has no room"
        assert not adopter.is_killed
        assert adopter.silent_seconds < 1
        assert self.left_alone.get(adopter, 0.0) <= self.now
        held.place(adopter, self.now)

    def take_back(self, adopter: Any) -> None:
        unread = [held for held in self.transits if held.adopter is adopter and held not in self.read]
        for held in unread:
            held.unplace()
        if unread:
            self.left_alone[adopter] = self.now + ALONE_SECONDS
        for held in self.transits:
            if held.adopter is adopter:
                held.is_read = True

    # -- what workers do; all that they say wakes the master

    def pick(self, number: int, *states: ChildState) -> MadeUpWorker | None:
        found = [each for each in self.workers if each.state in states and each not in self.stopped]
        return found[number % len(found)] if found else None

    @rule(number=NUMBERS)
    def one_reads(self, number: int) -> None:
        worker = self.pick(number, *ChildState)
        self.read |= {held for held in self.transits if held.adopter is worker}

    @rule(number=NUMBERS, adopts=st.booleans())
    def one_answers(self, number: int, adopts: bool) -> None:
        """It adopts or refuses what it has read."""
        worker = self.pick(number, *ChildState)
        for held in [held for held in self.transits if held.adopter is worker and held in self.read]:
            self.read.discard(held)
            held.unplace()
            if adopts and worker is not None:
                self.transits.remove(held)
                worker.connection_count += 1
            else:
                self.left_alone[worker] = self.now + ALONE_SECONDS
        self.turn()

    @rule(number=NUMBERS, refusals=st.integers(0, 9))
    def one_gives(self, number: int, refusals: int) -> None:
        """What it was asked for, but for so many that cannot move."""
        worker = self.pick(number, *ChildState)
        if worker in self.asked:
            self.give(worker, max(0, self.asked[worker] - refusals))

    def give(self, worker: MadeUpWorker, number: int) -> None:
        number = min(number, worker.connection_count)
        worker.connection_count -= number
        self.transits += [transit() for _ in range(number)]
        del self.asked[worker]
        self.grants.note_released(worker, number, self.now)
        self.turn()

    # -- what happens behind the master's back

    @rule(number=NUMBERS)
    def a_client_comes(self, number: int) -> None:
        worker = self.pick(number, ChildState.READY)
        if worker is not None and worker.room:
            worker.connection_count += 1
            self.total += 1

    @rule(number=NUMBERS)
    def a_client_goes(self, number: int) -> None:
        worker = self.pick(number, ChildState.READY, ChildState.RETIRING)
        if worker is not None and worker.connection_count:
            worker.connection_count -= 1
            self.total -= 1

    @rule(number=NUMBERS)
    def one_stops(self, number: int) -> None:
        worker = self.pick(number, *ChildState)
        if worker is not None:
            self.stopped.add(worker)

    @rule()
    def the_stopped_go_on(self) -> None:
        for worker in self.stopped:
            worker.silent_seconds = 0.0
        self.stopped.clear()

    @rule(seconds=st.floats(0.01, 3.0))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            at = min(max(self.wake_at, self.now), until)
            for worker in self.stopped:
                worker.silent_seconds += at - self.now
            is_due = self.wake_at <= at
            self.now = at
            if is_due:
                self.turn()

    # -- what happens to workers, which wakes the master

    @rule()
    def one_boots(self) -> None:
        if len(self.workers) < 8:
            self.workers.append(booting(limit=LIMIT))
            self.turn()

    @rule(number=NUMBERS)
    def one_gets_ready(self, number: int) -> None:
        worker = self.pick(number, ChildState.BOOTING)
        if worker is not None:
            worker.state = ChildState.READY
            self.is_uneven = True
            self.turn()

    @rule(number=NUMBERS)
    def one_retires(self, number: int) -> None:
        worker = self.pick(number, ChildState.READY)
        if worker is not None:
            worker.state = ChildState.RETIRING
            self.turn()

    @rule(number=NUMBERS)
    def one_dies(self, number: int) -> None:
        if self.workers:
            self.bury(self.workers[number % len(self.workers)])

    def bury(self, worker: MadeUpWorker) -> None:
        self.workers.remove(worker)
        self.stopped.discard(worker)
        self.asked.pop(worker, None)
        self.grants.forget(worker)
        self.left_alone.pop(worker, None)
        self.total -= worker.connection_count
        for held in self.transits:
            if held.adopter is worker:
                self.read.discard(held)
                held.unplace()
        self.turn()

    # -- an upgrade

    @rule()
    def a_new_master_takes_over(self) -> None:
        if self.new_master_at is None:
            self.new_master_at = 0.0
            for worker in self.workers:
                self.take_back(worker)
            self.left_alone.clear()
            self.turn()

    @rule(adopts=st.booleans())
    def the_new_master_answers(self, adopts: bool) -> None:
        """It adopts or refuses all that it was given."""
        for held in [held for held in self.transits if held.is_with_new_master]:
            held.is_with_new_master = False
            if adopts:
                self.transits.remove(held)
                self.total -= 1
            else:
                self.new_master_at = self.now + ALONE_SECONDS
        self.turn()

    @rule()
    def the_new_master_ends(self) -> None:
        """And with it what it was given."""
        self.new_master_at = None
        given = [held for held in self.transits if held.is_with_new_master]
        self.transits = [held for held in self.transits if held not in given]
        self.total -= len(given)
        self.turn()

    # -- what must hold

    @invariant()
    def no_connection_is_lost_or_doubled(self) -> None:
        """Each is in one worker or in transit, in one place."""
        assert len(set(self.transits)) == len(self.transits)
        assert sum(worker.connection_count for worker in self.workers) + len(self.transits) == self.total

    @invariant()
    def nobody_is_over_its_room(self) -> None:
        """Those on their way counted; and no more are on their way than the window."""
        assert all(worker.load <= LIMIT for worker in self.workers)
        assert sum(self.asked.values()) + len(self.transits) <= WINDOW

    @invariant()
    def it_never_sleeps_while_something_waits(self) -> None:
        """For what no event tells: room, signs of life, the end of a rest, an adopter's silence."""
        waits = any(held.is_unplaced for held in self.transits)
        is_sent = any(held.adopter is not None and not held.is_read for held in self.transits)
        leaves = any(worker.state is ChildState.RETIRING and not worker.is_killed for worker in self.workers)
        boots = any(worker.state is ChildState.BOOTING for worker in self.workers)  # whose end is told
        if waits or is_sent or leaves or (self.is_uneven and not boots):
            assert self.now < self.wake_at <= self.now + 1.0

    @rule()
    def left_alone_everything_finds_its_place(self) -> None:
        """From here on all run, adopt and give, and there is one with room: woken by nothing but ``wake_at``."""
        self.the_stopped_go_on()
        roomy = ready(limit=1000)
        self.workers.append(roomy)
        for _ in range(100):
            self.all_do_what_they_should()
            if self.is_at_rest():
                break
            assert self.wake_at < math.inf
            self.time_passes(max(0.01, self.wake_at - self.now))
        assert self.is_at_rest(), (self.workers, self.transits)
        assert self.wake_at == math.inf
        self.bury(roomy)  # lest the toy has room for ever

    def all_do_what_they_should(self) -> None:
        for worker in [*self.workers]:
            if worker.state is ChildState.BOOTING:
                worker.state, self.is_uneven = ChildState.READY, True
                self.turn()
            self.read |= {held for held in self.transits if held.adopter is worker}
        for number in range(len(self.workers)):
            self.one_answers(number, True)
            self.one_gives(number, 0)
        for worker in [*self.workers]:
            if worker.state is ChildState.RETIRING and not worker.load and worker not in self.asked:
                self.bury(worker)
        self.the_new_master_answers(True)

    def is_at_rest(self) -> bool:
        is_moving = self.transits or self.asked or self.is_uneven
        return not is_moving and all(worker.state is ChildState.READY for worker in self.workers)


Toy.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestToy = Toy.TestCase
