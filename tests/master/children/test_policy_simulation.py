"""A toy cluster that does what `decide` says, while workers die, hang and fail to boot: it always comes to rest.

The toy keeps the books as the supervisor does; time and processes are made up.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.master.children.child import ChildEvent, ChildState
from rpccluster.master.children.policy import Kill, Question, Retire, Spawn, decide
from rpccluster.master.kinds.rpc import RPCWorker
from rpccluster.system import Exit

from ..made_up import booting, edition, group, ready

GRACEFUL_SECONDS = 30.0
TIMEOUT_SECONDS = 10.0


class Toy(RuleBasedStateMachine):
    """A cluster and everything that may befall it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        workers = [ready(slot, booted_at=0.0) for slot in range(3)]
        self.group = group(*workers, timeout=TIMEOUT_SECONDS, max_lifetime=500.0)
        self.staged: int | None = None
        self.candidate: RPCWorker | None = None
        self.hung: set[int] = set()

    @property
    def workers(self) -> list[RPCWorker]:
        workers: list[Any] = self.group.children
        return workers

    # -- what the supervisor does

    def decide_and_do(self) -> None:
        for action in self.decide():
            self.do(action)

    def decide(self) -> list[Any]:
        self.group.section.staged = None if self.staged is None else edition(self.staged)
        return decide(self.group, self.now).actions

    def do(self, action: Any) -> None:
        if isinstance(action, Spawn):
            worker = booting(action.slot, action.generation, self.now)
            self.workers.append(worker)
            if action.generation == self.staged:
                assert self.candidate not in self.workers or self.candidate.kill_reason == "overtaken"  # type: ignore[union-attr]
                self.candidate = worker
        elif isinstance(action, Retire):
            self.check_retirement(action)
            action.child.note_retirement(action.reason, self.now, self.now + GRACEFUL_SECONDS)
        elif isinstance(action, Question):
            action.child.questioned_at = self.now
        elif isinstance(action, Kill):
            action.child.kill_reason = action.reason
        else:
            raise AssertionError(action)

    def check_retirement(self, action: Retire) -> None:
        """Nobody leaves a wanted slot but for a successor that serves in it."""
        slot = action.child.slot
        if slot < self.group.wanted:
            assert any(each.is_ready and each.slot == slot for each in self.workers if each is not action.child)

    def boots(self, worker: RPCWorker) -> None:
        worker.step(ChildEvent.BOOTED)
        worker.ready_at = self.now
        if worker is self.candidate and self.staged is not None:
            self.group.section.generation, self.staged, self.candidate = self.staged, None, None
            self.group.roll(self.now)

    def ends(self, worker: RPCWorker) -> None:
        self.hung.discard(worker.pid)
        if self.group.note_end(worker, Exit(worker.pid, 1, None), self.now).was_asked:
            return
        if worker.ready_at is None:
            if worker is self.candidate:
                self.staged = self.candidate = None
            elif self.group.is_rolling and worker.generation == self.group.generation:
                self.group.is_rolling = self.group.is_rolling and not any(
                    other.is_ready and other.slot == worker.slot for other in self.workers
                )

    def pick(self, number: int, *states: ChildState) -> RPCWorker | None:
        found = [each for each in self.workers if each.state in states and not each.is_killed]
        return found[number % len(found)] if found else None

    # -- what befalls it

    @rule(number=st.integers(0, 9))
    def one_boots(self, number: int) -> None:
        worker = self.pick(number, ChildState.BOOTING)
        if worker is not None and worker.pid not in self.hung:
            self.boots(worker)
        self.decide_and_do()

    @rule(number=st.integers(0, 9))
    def one_ends(self, number: int) -> None:
        worker = self.pick(number, *ChildState)
        if worker is not None:
            self.ends(worker)
        self.decide_and_do()

    @rule(number=st.integers(0, 9))
    def a_leaver_ends(self, number: int) -> None:
        worker = self.pick(number, ChildState.RETIRING)
        if worker is not None:
            self.ends(worker)
        self.decide_and_do()

    @rule(number=st.integers(0, 9))
    def one_hangs(self, number: int) -> None:
        worker = self.pick(number, *ChildState)
        if worker is not None:
            self.hung.add(worker.pid)
            worker.row[CommonCell.HEARTBEAT] = int(self.now * 1e9)

    @rule()
    def the_killed_are_buried(self) -> None:
        for worker in [each for each in self.workers if each.is_killed]:
            self.ends(worker)
        self.decide_and_do()

    @rule(number=st.integers(0, 9), reason=st.sampled_from(["max_requests", "max_memory", "SIGTERM"]))
    def one_is_overdue(self, number: int, reason: str) -> None:
        worker = self.pick(number, ChildState.READY)
        if worker is not None:
            worker.want_recycling(self.now, reason)
        self.decide_and_do()

    @rule(number=st.integers(1, 6))
    def it_is_scaled(self, number: int) -> None:
        self.group.wanted = number
        self.decide_and_do()

    @rule()
    def it_is_reloaded(self) -> None:
        if self.candidate is not None and self.candidate in self.workers:
            self.candidate.kill_reason = self.candidate.kill_reason or "overtaken"
        self.candidate, self.staged = None, self.group.generation + 1
        self.decide_and_do()

    @rule(seconds=st.floats(0.1, 40.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.decide_and_do()

    # -- what must hold

    @invariant()
    def nobody_starts_twice_at_once(self) -> None:
        """At most one worker boots in each slot, those that are on their way out left aside; and one for a reload."""
        boot = [each for each in self.workers if each.state is ChildState.BOOTING and each.is_holding]
        slots = [each.slot for each in boot if each.generation != self.staged]
        assert len(slots) == len(set(slots))
        assert [each for each in boot if each.generation == self.staged] in ([], [self.candidate])

    @invariant()
    def successors_do_not_pile_up(self) -> None:
        """At most one successor boots beside a worker that serves in its slot; a reload's first one left aside, those
        that hang, and those whose slot was vacant until that first one came."""
        serving = {each.slot: each.generation for each in self.workers if each.is_ready}
        successors = [
            each
            for each in self.workers
            if each.state is ChildState.BOOTING
            and each is not self.candidate
            and each.is_holding
            and serving.get(each.slot, 0) in range(1, each.generation + 1)
        ]
        assert len({each.slot for each in successors}) <= 1

    @invariant()
    def deciding_again_asks_for_nothing_new(self) -> None:
        """What was asked for shows in the handles: a second look right away finds no more vacancies."""
        self.decide_and_do()
        spawned = [action for action in self.decide() if isinstance(action, Spawn)]
        assert spawned == []

    @rule()
    def left_alone_it_comes_to_rest(self) -> None:
        """From here on every boot succeeds and nobody dies: soon as many serve as should, none is overdue."""
        for _ in range(200):
            if self.is_at_rest():
                return
            self.now += 1.0
            self.one_quiet_second()
            self.decide_and_do()
        raise AssertionError(f"not at rest: {self.workers}, {self.group}")

    def one_quiet_second(self) -> None:
        for worker in list(self.workers):
            if worker.pid in self.hung and not worker.is_killed:
                continue
            if worker.is_killed or worker.state is ChildState.RETIRING:
                self.ends(worker)
            elif worker.state is ChildState.BOOTING:
                self.boots(worker)

    def is_at_rest(self) -> bool:
        slots = sorted(worker.slot for worker in self.workers if worker.is_ready and worker.pid not in self.hung)
        is_full = slots == list(range(self.group.wanted)) and len(self.workers) == len(slots)
        is_old = any(
            worker.overdue or (self.group.is_rolling and worker.generation < self.group.generation)
            for worker in self.workers
        )
        return is_full and not is_old and self.staged is None


Toy.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestToy = Toy.TestCase


class Peaceful(Toy):
    """The same without deaths, hangs and scaling: nothing but recycling and reloads."""

    one_ends = one_hangs = it_is_scaled = the_killed_are_buried = None  # type: ignore[assignment]

    @invariant()
    def as_many_serve_as_should(self) -> None:
        """Recycling and reloading never cost a worker: the successor is ready before its predecessor goes."""
        assert len({each.slot for each in self.workers if each.is_ready}) == self.group.wanted


Peaceful.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestPeaceful = Peaceful.TestCase
