"""The core against a model: whatever comes in whatever order, each task ends once, and no attempt begins twice."""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rpccluster.pools.core import Task
from rpccluster.pools.core.kinds import REPEATED, pause_seconds
from rpccluster.pools.core.task import State

from .made_up import FAST, Edge, MadeUpProcess

KINDS = ["ok", "ok", "ok", "raised", "rejected"]


class Pool(RuleBasedStateMachine):
    """A pool whose processes live and die at will."""

    def __init__(self) -> None:
        super().__init__()
        self.edge = Edge()
        self.submitted: dict[int, Task] = {}
        self.buried: list[MadeUpProcess] = []
        self.kinds: dict[int, list[str]] = {}  # that the processes told of each task

    @rule(priority=st.integers(-2, 2), retries=st.integers(0, 2), key=st.sampled_from([None, None, "a", "b"]))
    def submit(self, priority: int, retries: int, key: str | None) -> None:
        """Submit a task; one with the key of a living one that is wanted is that one."""
        wanted = [task for task in self.submitted.values() if task.state is not State.ENDED and not task.is_cancelled]
        living = {task.key: task for task in wanted if task.key}
        task = self.edge.submit(priority=priority, retries=retries, key=key, size=priority * 40_000 + 80_000)
        assert living.get(key, task) is task
        self.submitted[task.id] = task

    @rule(many=st.integers(2, 30))
    def submit_many(self, many: int) -> None:
        """Submit tasks of which many can be sent ahead."""
        for _ in range(many):
            task = self.edge.submit()
            self.submitted[task.id] = task

    @precondition(lambda self: len(self.edge.processes) < 4)
    @rule()
    def join(self) -> None:
        """One more process is ready."""
        self.edge.join()

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel any task."""
        self.edge.cancel(self.submitted[data.draw(st.sampled_from(sorted(self.submitted)))])

    @precondition(lambda self: self.edge.processes)
    @rule(
        data=st.data(),
        kind=st.sampled_from(KINDS),
        seconds=st.sampled_from([FAST, FAST, 0.0, 0.5]),
        reads=st.booleans(),
    )
    def run(self, data: st.DataObject, kind: str, seconds: float, reads: bool) -> None:
        """A process ends a task, which the core learns now or later."""
        made_up = data.draw(st.sampled_from(self.edge.processes))
        if made_up.begin():
            assert made_up.running is not None
            self.kinds.setdefault(made_up.running[0].id, []).append(kind)
            made_up.end(kind, seconds)
        if reads:
            self.edge.read(made_up)

    @precondition(lambda self: self.edge.processes)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """A process begins its next task."""
        data.draw(st.sampled_from(self.edge.processes)).begin()

    @precondition(lambda self: self.edge.processes)
    @rule(data=st.data(), kind=st.sampled_from(["process_lost", "timed_out", "out_of_memory"]), tells=st.booleans())
    def die(self, data: st.DataObject, kind: str, tells: bool) -> None:
        """A process is killed, perhaps after it told of its task and before it cleared its cells."""
        made_up = data.draw(st.sampled_from(self.edge.processes))
        if tells and made_up.running is not None:
            self.kinds.setdefault(made_up.running[0].id, []).append("ok")
            made_up.end("ok", is_killed_before_it_clears=True)
        elif made_up.running is not None:
            self.kinds.setdefault(made_up.running[0].id, []).append(kind)
        self._bury(made_up, kind)

    def _bury(self, made_up: MadeUpProcess, kind: str) -> None:
        self.buried.append(made_up)
        self.edge.bury(made_up, kind)

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.3]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.edge.tick(seconds)

    @rule()
    def kill(self) -> None:
        """A process that must be killed is killed, if it still runs that task."""
        for made_up in [made_up for made_up in self.edge.processes if made_up.killed]:
            if made_up.running is not None and made_up.cell in made_up.killed:
                self.kinds.setdefault(made_up.running[0].id, []).append("cancelled")
                self._bury(made_up, "process_lost")
            made_up.killed.clear()

    @invariant()
    def each_attempt_begins_once(self) -> None:
        """No attempt of a task is begun by two processes, nor twice by one."""
        began = [pair for made_up in self.edge.processes + self.buried for pair in made_up.began]
        assert len(began) == len(set(began))

    @invariant()
    def each_task_ends_once(self) -> None:
        """With what its last attempt told, or as cancelled."""
        ended = [action.task.id for action in self.edge.ended]
        assert len(ended) == len(set(ended))
        for action in self.edge.ended:
            told = self.kinds.get(action.task.id, [])
            if not action.task.is_cancelled:
                assert action.kind == told[-1]
                assert all(kind in REPEATED for kind in told[:-1])
            else:
                assert action.kind == "cancelled"
            assert action.task.state is State.ENDED

    @invariant()
    def nothing_is_idle_while_something_waits(self) -> None:
        """And the core's counts are right."""
        core = self.edge.core
        waiting = [task for task in core.tasks.values() if task.state is State.WAITING]
        assert len(waiting) == len(core._waiting)
        assert not (waiting and core._idle)
        busy = sum(1 for process in core.processes if process.tasks)
        assert core.waiting == len(core.tasks) - busy
        assert all(process.bytes == sum(task.size for task in process.tasks) for process in core.processes)

    @invariant()
    def what_waits_for_a_time_is_woken(self) -> None:
        """`wake_at` names a time as long as something is repeated later."""
        if any(task.state is State.PAUSED for task in self.edge.core.tasks.values()):
            assert self.edge.core.wake_at is not None

    def teardown(self) -> None:
        """In the end everything has ended."""
        for _ in range(10_000):
            if not self.edge.core.tasks:
                break
            for made_up in list(self.edge.processes):
                while made_up.begin():
                    assert made_up.running is not None
                    self.kinds.setdefault(made_up.running[0].id, []).append("ok")
                    made_up.end()
                self.edge.read(made_up)
            if not self.edge.processes:
                self.edge.join()
            self.edge.tick(pause_seconds(3))
        assert not self.edge.core.tasks
        assert len(self.edge.ended) == len(self.submitted)
        self.each_attempt_begins_once()
        self.each_task_ends_once()
        assert self.edge.core.waiting == 0
        assert self.edge.core.wake_at is None


TestPool = Pool.TestCase
TestPool.settings = settings(
    max_examples=2000 if os.environ.get("RPCCLUSTER_FULL_SCALE") else 60, stateful_step_count=50, deadline=None
)
