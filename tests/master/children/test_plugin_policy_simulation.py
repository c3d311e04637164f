"""A toy plugin that does what `decide` says, while it ends, is stopped, started, restarted, scaled and reloaded.

Time and processes are made up. With no overlap it never has two processes in a slot; stopped it has none.
"""

from __future__ import annotations

import signal
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rpccluster.master.children.child import ChildState
from rpccluster.master.children.group import Overlap, Restart
from rpccluster.master.children.policy import Admit, Kill, Question, Retire, Spawn, decide
from rpccluster.master.kinds.rpc import RPCWorker
from rpccluster.system import Exit

from ..made_up import booting, group

STOP_SECONDS = 10.0
READY_SECONDS = 30.0
ALIVE_SECONDS = 1.0


class Toy(RuleBasedStateMachine):
    """A plugin and everything that may befall it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.deaf: set[RPCWorker] = set()
        self.group = group(number_workers=2, max_lifetime=500.0, has_begun=True, name="plugin:a")

    @initialize(overlap=st.sampled_from(Overlap), restart=st.sampled_from(Restart), speaks=st.booleans())
    def it_is_configured(self, overlap: Overlap, restart: Restart, speaks: bool) -> None:
        self.group.overlap, self.group.restart = overlap, restart
        self.speaks = speaks
        self.decide_and_do()

    @property
    def children(self) -> list[RPCWorker]:
        children: list[Any] = self.group.children
        return children

    # -- what the master does

    def decide_and_do(self) -> None:
        for action in decide(self.group, self.now).actions:
            self.do(action)

    def do(self, action: Any) -> None:
        if isinstance(action, Spawn):
            assert not self.group.stopped
            assert action.slot not in self.group.finished
            ready_at = None if self.speaks else self.now + ALIVE_SECONDS
            child = booting(
                action.slot,
                action.generation,
                self.now,
                hears_while_booting=True,
                may_end=True,
                ready_by=self.now + READY_SECONDS,
                counts_as_ready_at=ready_at,
            )
            self.children.append(child)
        elif isinstance(action, Retire):
            assert action.child.state is not ChildState.RETIRING
            action.child.note_retirement(action.reason, self.now, self.now + STOP_SECONDS)
        elif isinstance(action, Admit):
            action.child.note_ready(self.now)
        elif isinstance(action, Question):
            action.child.questioned_at = self.now
        elif isinstance(action, Kill):
            action.child.kill_reason = action.reason
        else:
            raise AssertionError(action)

    def ends(self, child: RPCWorker, exit_: Exit) -> None:
        self.group.note_end(child, exit_, self.now)
        self.deaf.discard(child)
        self.decide_and_do()

    def pick(self, number: int, *states: ChildState) -> RPCWorker | None:
        found = [each for each in self.children if each.state in states and not each.is_killed]
        return found[number % len(found)] if found else None

    # -- what befalls it

    @rule(number=st.integers(0, 9))
    def one_is_ready(self, number: int) -> None:
        child = self.pick(number, ChildState.BOOTING)
        if child is not None:
            child.note_ready(self.now)
        self.decide_and_do()

    @rule(number=st.integers(0, 9), how=st.sampled_from([(0, None), (1, None), (None, signal.SIGKILL)]))
    def one_ends(self, number: int, how: tuple[Any, Any]) -> None:
        child = self.pick(number, *ChildState)
        if child is not None:
            self.ends(child, Exit(child.pid, *how))

    @rule(number=st.integers(0, 9))
    def one_turns_deaf(self, number: int) -> None:
        child = self.pick(number, *ChildState)
        if child is not None:
            self.deaf.add(child)

    @rule()
    def the_killed_are_buried(self) -> None:
        for child in [each for each in self.children if each.is_killed]:
            self.ends(child, Exit(child.pid, None, signal.SIGKILL))

    @rule()
    def it_is_stopped(self) -> None:
        self.group.stopped = "by hand"
        self.decide_and_do()

    @rule()
    def it_is_started(self) -> None:
        self.group.stopped = ""
        self.group.forgive(self.now)
        self.decide_and_do()

    @rule()
    def it_is_restarted(self) -> None:
        self.it_is_started()
        for child in self.children:
            if not child.is_expected_to_end:
                child.want_recycling(self.now, "restarted by hand")
        self.decide_and_do()

    @rule(number=st.integers(1, 4))
    def it_is_scaled(self, number: int) -> None:
        self.group.wanted = number
        self.group.finished = {slot for slot in self.group.finished if slot < number}
        self.decide_and_do()

    @rule()
    def it_is_reloaded(self) -> None:
        self.group.section.generation += 1
        self.group.forgive(self.now)
        self.group.roll(self.now)
        self.decide_and_do()

    @rule(seconds=st.floats(0.1, 40.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.decide_and_do()

    # -- what must hold

    @invariant()
    def without_overlap_nobody_is_there_twice(self) -> None:
        """A process that is killed counts until it is buried."""
        slots = [child.slot for child in self.children]
        if self.group.overlap is Overlap.PREDECESSOR_FIRST:
            assert len(slots) == len(set(slots))

    @invariant()
    def deciding_comes_to_an_end(self) -> None:
        """What was asked for shows at once; and the policy says when to look again, if anything is due later."""
        for _ in range(10):
            decision = decide(self.group, self.now)
            if not decision.actions:
                break
            self.decide_and_do()
        assert decision.actions == []
        assert decision.wake_at > self.now

    @rule()
    def left_alone_it_comes_to_rest(self) -> None:
        """Soon all serve that should, or have finished; stopped, nobody is left."""
        for _ in range(300):
            if self.group.is_settled() and not any(child.overdue for child in self.children):
                return
            self.now += 1.0
            for child in list(self.children):
                if child.is_killed or (child.state is ChildState.RETIRING and child not in self.deaf):
                    self.ends(child, Exit(child.pid, None, signal.SIGKILL))
                elif child.state is ChildState.BOOTING and self.speaks:
                    child.note_ready(self.now)
            self.decide_and_do()
        raise AssertionError(f"not at rest: {self.children}, {self.group}")


Toy.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestToy = Toy.TestCase
