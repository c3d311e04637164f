"""Decides which worker gives how many connections, and which gets which. Pure: no I/O, no clock. Runs in the master.

`decide` looks at the connections in transit and at the workers. It returns the actions, and the time at which to ask
again if nothing happens before. `rpccluster.master.handover.broker` performs the actions. The rules:

- A connection in transit goes to the ready worker with room that serves the fewest connections, including those on
  their way to it. If no ready worker has room, a retiring worker gets it, serves it and answers its calls.
- If an adopter has not sent `Adopted` for `PATIENCE_SECONDS`, the connections that it has not read are taken back.
  For a while it gets no more; the same holds for a worker that has refused a connection.
- A retiring worker is asked for all its connections, as far as others have room. The rest stay with it.
- At most `WINDOW` connections are asked for, because the kernel counts descriptors in flight for each user, see
  unix(7); and at most `WINDOW_BYTES`, because the kernel holds them in memory.
- The counts are evened out only when nothing moves and no worker boots, since either will change them.
- In an upgrade everything goes to the new master, which has room for all.
- Where one process alone serves, and its successor starts when it has ended, the master *holds* its connections
  meanwhile: they are asked for although nobody can take them yet.

Most events are messages or ends of processes, and wake the master anyway. Room, load and heartbeats are cells of the
scoreboard, whose changes wake nobody: a decision that waits for them asks again after `LOOK_SECONDS`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Union

from rpccluster.ipc.messages import Release
from rpccluster.master.children.child import ChildState
from rpccluster.master.handover.transit import Grants, Transit
from rpccluster.master.handover.worker import Worker

__all__ = ["Action", "Ask", "Decision", "Even", "PassOn", "Place", "Situation", "TakeBack", "decide"]

WINDOW = 64  # most connections in transit at once
WINDOW_BYTES = 16_777_216  # that travel with them; one more connection is granted while less is under way
GRANT_BYTES = 4_194_304  # of these for one donor
PATIENCE_SECONDS = 1.0  # for an adopter to send `Adopted`; then its unread connections are taken back
SILENT_SECONDS = 1.0  # without a heartbeat; a worker that is silent longer gets no connection
ALONE_SECONDS = 1.0  # in which a worker gets none after it has refused one, or one was taken back
LOOK_SECONDS = 0.25  # between two looks at cells whose changes are no events
UNEVEN = 0.1  # of the mean: a larger difference between fullest and emptiest is evened out


class Place(NamedTuple):
    """Send a connection in transit to a worker."""

    transit: Transit
    adopter: Worker


class PassOn(NamedTuple):
    """Send a connection in transit to the new master."""

    transit: Transit


class TakeBack(NamedTuple):
    """Take back the connections that a worker was sent and has not read."""

    adopter: Worker


class Ask(NamedTuple):
    """Ask a worker for connections."""

    donor: Worker
    release: Release


class Even(NamedTuple):
    """The workers' connections are even now, or stay as they are."""


Action = Union[Place, PassOn, TakeBack, Ask, Even]


@dataclass
class Situation:
    """Everything that `decide` looks at. Times are monotonic seconds."""

    workers: Sequence[Worker]
    transits: Sequence[Transit] = ()
    grants: Grants = field(default_factory=Grants)
    left_alone: Mapping[Worker, float] = field(default_factory=dict)  # until when they get no connection
    new_master_at: float | None = None  # when it may get connections; None without a new master
    may_move: bool = True  # whether to ask for connections; those in transit are placed in any case
    is_uneven: bool = False  # whether to even out the counts
    holds: bool = False  # whether connections may wait here until there is somebody to serve them


class Decision(NamedTuple):
    """The actions in their order, and when to ask again: `math.inf` if only an event can change anything."""

    actions: list[Action]
    wake_at: float


def decide(situation: Situation, now: float) -> Decision:
    """Decide what to do now."""
    if not (situation.transits or situation.is_uneven or any_leaves(situation.workers)):
        return Decision([], math.inf)
    plan = _Plan(situation, now)
    plan.take_back()
    plan.place()
    if situation.may_move:
        plan.empty_the_retiring()
        if situation.is_uneven:
            plan.even_out()
    elif situation.is_uneven:  # nothing can move, so there is nothing to wait for
        plan.actions.append(Even())
    return Decision(plan.actions, plan.wake_at)


class _Plan:
    """A decision that grows: it counts what it has already planned."""

    def __init__(self, situation: Situation, now: float) -> None:
        self._situation = situation
        self._now = now
        self.actions: list[Action] = []
        self.wake_at = math.inf
        self._late: dict[Worker, None] = {}  # adopters to take back from, in this order
        self._planned: Counter[Worker] = Counter()  # connections that this plan sends them
        self._unplaced = 0
        granted = situation.grants.total(_shows_life)
        self._granted, self._granted_bytes = granted.number, granted.number_bytes

    def _wake(self, at: float) -> None:
        self.wake_at = min(self.wake_at, at)

    def _look_again(self) -> None:
        self._wake(self._now + LOOK_SECONDS)

    # -- connections in transit

    def take_back(self) -> None:
        """Plan to take connections back from adopters that have not sent `Adopted` in time."""
        for transit in self._situation.transits:
            if transit.adopter is not None and not transit.is_read:
                late_at = transit.sent_at + PATIENCE_SECONDS
                self._wake(max(late_at, self._now))  # connections taken back are placed in the next decision
                if self._now >= late_at:
                    self._late[transit.adopter] = None
        self.actions += [TakeBack(adopter) for adopter in self._late]

    def place(self) -> None:
        """Plan a place for each connection that was sent to no worker."""
        unplaced = [transit for transit in self._situation.transits if transit.is_unplaced]
        if not unplaced:
            return
        if self._gives_to_new_master:
            self.actions += map(PassOn, unplaced)
            return
        adopters = self._adopters()
        retiring = self._living(lambda worker: worker.state is ChildState.RETIRING)
        last_resort = [] if self._situation.holds else retiring
        for transit in unplaced:
            adopter = self._emptiest(adopters) or self._emptiest(last_resort)
            if adopter is None:
                self._unplaced += 1
            else:
                self.actions.append(Place(transit, adopter))
                self._planned[adopter] += 1
                self._wake(self._now + PATIENCE_SECONDS)
        if self._unplaced:
            self._wait_for_adopters()

    def _wait_for_adopters(self) -> None:
        self._look_again()
        for at in (*self._situation.left_alone.values(), self._situation.new_master_at or 0.0):
            if at > self._now:
                self._wake(at)

    @property
    def _gives_to_new_master(self) -> bool:
        return self._situation.new_master_at is not None and self._now >= self._situation.new_master_at

    def _adopters(self) -> list[Worker]:
        return self._living(lambda worker: worker.is_ready and not worker.is_full(self._now))

    def _living(self, is_meant: Callable[[Worker], bool]) -> list[Worker]:
        """Return the workers that can be expected to adopt a connection at once."""
        left_alone = self._situation.left_alone
        return [
            worker
            for worker in self._situation.workers
            if is_meant(worker)
            and not worker.is_killed
            and worker not in self._late
            and _shows_life(worker)
            and self._now >= left_alone.get(worker, 0.0)
        ]

    def _emptiest(self, workers: Iterable[Worker]) -> Worker | None:
        """Return the worker with room that has the fewest connections."""
        return min((worker for worker in workers if self._room(worker) > 0), key=self._load, default=None)

    def _load(self, worker: Worker) -> int:
        return worker.load + self._planned[worker]

    def _room(self, worker: Worker) -> int:
        return worker.room - self._planned[worker]

    # -- asking for connections

    def empty_the_retiring(self) -> None:
        """Plan to ask each retiring worker for as many connections as others can take."""
        for worker in self._situation.workers:
            if worker.state is ChildState.RETIRING and not worker.is_killed:
                self._look_again()
                if worker.connection_count:
                    self._ask(worker, worker.connection_count)

    def even_out(self) -> None:
        """Plan to ask the fullest worker for its connections above the mean, unless the counts are about even."""
        adopters = self._adopters()
        counts = [self._load(worker) for worker in adopters]
        is_booting = any(worker.state is ChildState.BOOTING for worker in self._situation.workers)
        if self._situation.transits or self._granted:
            self._look_again()
        elif is_booting:
            return  # the end of a boot is an event
        elif len(counts) < 2 or max(counts) - min(counts) <= max(1, UNEVEN * sum(counts) / len(counts)):
            self.actions.append(Even())
        else:
            fullest = max(adopters, key=self._load)
            mean = -(-sum(counts) // len(counts))
            self._ask(fullest, max(1, self._load(fullest) - mean))
            self._look_again()

    def _ask(self, donor: Worker, wanted: int) -> None:
        """Plan to ask ``donor`` for ``wanted`` connections, within the window and the others' room."""
        free_at = self._situation.grants.free_at(donor)
        if self._now < free_at:
            self._wake(free_at)
            return
        if self._situation.holds:
            self._ask_to_hold(donor, wanted)
            return
        transits = self._situation.transits
        possible = min(self._room_of_all() - self._unplaced, WINDOW - len(transits)) - self._granted
        under_way = sum(transit.size for transit in transits) + self._granted_bytes
        number_bytes = min(GRANT_BYTES, WINDOW_BYTES - under_way)
        number = min(wanted, possible)
        if number > 0 and number_bytes > 0:
            self.actions.append(Ask(donor, Release(number, number_bytes)))
            self._granted += number
            self._granted_bytes += number_bytes

    def _ask_to_hold(self, donor: Worker, wanted: int) -> None:
        """Plan to ask ``donor`` for what nobody need take yet: connections that have come here are not in flight."""
        number, number_bytes = min(wanted, WINDOW - self._granted), GRANT_BYTES - self._granted_bytes
        if number > 0 and number_bytes > 0:
            self.actions.append(Ask(donor, Release(number, number_bytes)))
            self._granted += number
            self._granted_bytes += number_bytes

    def _room_of_all(self) -> int:
        if self._situation.new_master_at is not None:
            return WINDOW if self._gives_to_new_master else 0
        return sum(self._room(worker) for worker in self._adopters())


def any_leaves(workers: Sequence[Worker]) -> bool:
    """Return whether one of ``workers`` retires: without that, and without connections in transit, nothing moves."""
    return bool([worker for worker in workers if worker.state is ChildState.RETIRING])


def _shows_life(worker: Worker) -> bool:
    return worker.silent_seconds < SILENT_SECONDS
