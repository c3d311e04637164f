"""Task processes as their master sees them: places, limits, what the dispatcher is told, and how they end."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from rpccluster.config import CPUChoice
from rpccluster.config.sections.pool import PoolOptions
from rpccluster.ipc.channel import channel_pair
from rpccluster.ipc.messages import BootFailed, Message, Ready, TaskProcess, TaskProcessGone, WantsToRetire
from rpccluster.ipc.scoreboard import ROW_CELLS, CommonCell, Row, TaskCell
from rpccluster.master.children import policy
from rpccluster.master.children.child import LATE, Birth, ChildState
from rpccluster.master.children.group import Group
from rpccluster.master.kinds.kind import Booted
from rpccluster.master.kinds.tasks.groups import adjust, pool_group, revise
from rpccluster.master.kinds.tasks.limits import LOOK_SECONDS
from rpccluster.master.kinds.tasks.process import TaskProcess as Process
from rpccluster.master.kinds.tasks.task import Task
from rpccluster.system import Exit, System

from ...made_up import cluster


class Rig:
    """A pool's group, the kind, and processes that nobody has forked. ``told`` is what a dispatcher is told."""

    def __init__(self, **options: Any) -> None:
        self.told: list[Message] = []
        self.cluster = cluster()
        self.said: list[tuple[Any, Message]] = []
        self.kind = Task(self._tell, lambda child, message: self.said.append((child, message)))
        options = {"processes": 2, **options}
        self.group: Group = pool_group("pool:a", PoolOptions(**options), self.cluster, self.kind)
        self.open: list[Any] = []
        self._serials = itertools.count(1)

    def _tell(self, message: Message, descriptors: Sequence[int]) -> None:
        assert len(descriptors) == (3 if isinstance(message, TaskProcess) else 0)
        self.told.append(message)

    def process(self, slot: int = 0, booted_at: float = 0.0) -> Process:
        """A process that boots in ``slot``."""
        one, far_end = channel_pair()
        row = Row(memoryview(array("Q", [0] * ROW_CELLS)))
        birth = Birth(slot, next(self._serials), self.group.section, 0, row, one, [0], booted_at)
        child, self.part = self.kind.equip(birth)
        child.pid = os.getpid()
        self.group.children.append(child)
        self.open += [child, far_end]
        return child

    def ready(self, slot: int = 0, now: float = 0.0) -> Process:
        """A process that is ready."""
        child = self.process(slot)
        child.note_ready(now)
        return child

    def runs(self, child: Process, number: int, deadline: float = 0.0) -> None:
        """``child`` runs the task ``number``."""
        child.row[TaskCell.DEADLINE] = int(deadline * 1e9)
        child.row[TaskCell.STARTED_AT] = 1_500_000_000
        child.row[CommonCell.RUNNING] = number

    def turn(self, now: float) -> list[policy.Action]:
        """What the policy does after a look."""
        self.kind.arrange(self.group, now)
        for child in self.group.children:
            self.kind.look(self.group, child, now)
        return policy.decide(self.group, now).actions

    def kill(self, child: Process, action: policy.Kill) -> None:
        """The process is killed, and has ended."""
        child.kill_reason = action.reason
        self.end(child, Exit(child.pid, None, 9))

    def end(self, child: Process, exit_: Exit) -> Any:
        """The process has ended. Returns its death."""
        child.exit = exit_
        death = self.group.note_end(child, exit_, 50.0)
        self.kind.note_end(child)
        return death


@pytest.fixture
def rig() -> Iterator[Any]:
    made: list[Rig] = []

    def make(**options: Any) -> Rig:
        made.append(Rig(**options))
        return made[-1]

    yield make
    for each in made:
        for thing in each.open:
            thing.close()


def test_a_group_is_what_its_section_says(rig: Any) -> None:
    """Named, of its kind, behind the dispatcher, with its spares beyond what is wanted."""
    group = rig(processes=3, spare=2).group
    assert (group.name, group.noun, group.title_of(1)) == ("pool:a", "pool a", "pool a")
    assert (group.wanted, group.places, group.after, group.counts_at_start) == (3, 5, ("pools",), False)
    assert group.runs_the_service
    assert [action.slot for action in policy.decide(group, 0.0).actions] == [0, 1, 2, 3, 4]


def test_other_options(rig: Any) -> None:
    """Live ones reach its processes by their cells; the others replace them one by one."""
    made = rig(max_tasks=5)
    child = made.ready()
    assert child.row[TaskCell.MOST_TASKS] == 5
    adjust(made.group, PoolOptions(processes=1, spare=0, max_tasks=9), 1.0)
    assert (made.group.wanted, made.group.places, child.row[TaskCell.MOST_TASKS]) == (1, 1, 9)
    assert not made.group.is_rolling
    revise(made.group, PoolOptions(targets=("x",)), 2.0)
    assert (made.group.generation, made.group.is_rolling, child.row[TaskCell.MOST_TASKS]) == (2, True, 0)


def test_jitter_is_added_to_max_tasks(rig: Any) -> None:
    """By chance, another for each process, within its bounds."""
    limits = {rig(max_tasks=100, max_tasks_jitter=1000).process().row[TaskCell.MOST_TASKS] for _ in range(8)}
    assert len(limits) > 1
    assert all(100 <= limit <= 1100 for limit in limits)


def test_the_dispatcher_gets_those_that_are_for_tasks(rig: Any) -> None:
    """When they are ready, once; the spare it does not."""
    made = rig(spare=1)
    first, second, spare = (made.process(slot) for slot in range(3))
    made.turn(0.0)
    assert made.told == []
    for child in (spare, first, second):
        assert made.kind.hear(child, Ready([]), [], 1.0) == Booted(child)
        child.note_ready(1.0)
        made.turn(1.0)
    assert [message.serial for message in made.told] == [spare.serial, first.serial]  # the first to be ready
    assert sorted(child.slot for child in (first, second, spare)) == [0, 1, 2]
    made.told.clear()
    made.kind.introduce([made.group])
    assert {message.serial for message in made.told} == {spare.serial, first.serial}


def test_a_new_dispatcher_hears_of_the_last_ends(rig: Any) -> None:
    """The one before it may not have heard of them; only they tell what had begun."""
    made = rig(processes=1)
    child = made.ready()
    made.turn(0.0)
    child.row[TaskCell.BEGUN] = 7
    made.end(child, Exit(child.pid, None, 9))
    told = made.told[-1]
    made.told.clear()
    made.kind.introduce([made.group])
    assert made.told == [told]
    assert (told.serial, told.begun) == (child.serial, 7)


def test_a_task_past_its_deadline_is_killed_and_a_spare_takes_its_place(rig: Any) -> None:
    """The dispatcher is told at once, and gets the spare; the end itself may take its time, and is not told again."""
    made = rig(processes=1)
    child, spare = made.ready(0), made.ready(1)
    made.turn(10.0)
    made.runs(child, 7, deadline=12.0)
    assert made.kind.look(made.group, child, 11.0) == 12.0
    assert made.turn(11.9) == []
    (kill,) = made.turn(12.0)
    assert kill == policy.Kill(child, "timed_out")
    assert child.row[TaskCell.CONDEMNED] == 7
    made.told.clear()
    child.kill_reason = kill.reason
    assert made.turn(12.0) == [policy.Spawn(1, 1)]
    gone = TaskProcessGone(child.serial, "a", 0, child.pid, 7, "timed_out", signal=9, started_at=1.5)
    assert made.told == [gone, TaskProcess(spare.serial, "a", 0, spare.pid, 0)]
    death = made.end(child, Exit(child.pid, None, 9))
    assert len(made.told) == 2
    assert not death.is_failure


def test_a_spare_gets_the_cpu_of_its_place(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that boots in exchange, too; without pinning nothing is touched."""
    pinned: list[tuple[list[int], int]] = []
    monkeypatch.setattr("rpccluster.master.kinds.tasks.process.pin", lambda cpus, pid: pinned.append((cpus, pid)))
    made = rig(processes=1, cpu_affinity=CPUChoice("list", (0, 5)))
    booting, spare = made.process(0), made.ready(1)
    made.turn(1.0)
    assert [(spare.slot, spare.cpus), (booting.slot, booting.cpus)] == [(0, [0]), (1, [5])]
    assert [cpus for cpus, _ in pinned] == [[0], [5]]
    plain = rig(processes=1)
    plain.ready(1)
    plain.turn(1.0)
    assert len(pinned) == 2


def test_a_task_that_ends_while_it_is_condemned_saves_its_process(rig: Any) -> None:
    """Another task must not be killed for it."""
    made = rig(processes=1, spare=0)
    child = made.ready()
    made.runs(child, 8)
    assert not child.condemn(7, "timed_out")
    assert not made.kind.cancel([made.group], child.serial, 7)
    assert not made.kind.cancel([made.group], child.serial + 1, 8)
    assert made.turn(1.0) == []
    assert made.kind.cancel([made.group], child.serial, 8)
    assert made.turn(1.0) == [policy.Kill(child, "cancelled")]


def test_memory_is_looked_at_while_a_task_runs(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With that of the descendants; and now and then without one, to replace a process that has grown."""
    sizes = {os.getpid(): 60, 1: 60}
    monkeypatch.setattr("rpccluster.master.kinds.tasks.task.resident_bytes", sizes.get)
    monkeypatch.setattr("rpccluster.master.kinds.tasks.task.descendants", lambda pid: [1])
    made = rig(processes=1, spare=0, max_memory=100)
    child = made.ready()
    made.kind.look(made.group, child, 100.0)
    assert child.row[CommonCell.RSS_BYTES] == 60
    made.runs(child, 7)
    assert made.kind.look(made.group, child, 101.0) == 101.0 + LOOK_SECONDS
    assert made.turn(101.0 + LOOK_SECONDS / 2) == []
    assert made.turn(101.1) == [policy.Kill(child, "out_of_memory")]


@pytest.mark.parametrize(
    ("number", "exit_", "cause"),
    [(7, Exit(1, 3, None), "lost"), (7, Exit(1, None, 11), "lost"), (0, Exit(1, None, 9), "lost")],
)
def test_an_end_that_nobody_has_asked_for(rig: Any, number: int, exit_: Exit, cause: str) -> None:
    """In a task it counts for nothing; the dispatcher is told what was begun."""
    made = rig()
    child = made.ready(now=49.0)
    made.turn(49.0)
    made.runs(child, number)
    made.told.clear()
    death = made.end(child, exit_)
    (told,) = made.told
    assert (told.number, told.cause, told.signal, told.status) == (number, cause, exit_.signal or 0, exit_.code or 0)
    assert not death.is_failure


def test_an_end_in_a_task_with_status_0_costs_no_pause_either(rig: Any) -> None:
    """A task that calls `os._exit` is no process that has done its work."""
    made = rig()
    child = made.ready(now=49.0)
    made.runs(child, 7)
    made.end(child, Exit(1, 0, None))
    assert made.group.start_at(0, 50.0) == float("-inf")


def test_one_that_could_not_boot_pauses(rig: Any) -> None:
    """With its reason; the dispatcher has never heard of it."""
    made = rig()
    child = made.process()
    assert made.kind.hear(child, BootFailed("service", "no module"), [], 0.0) is None
    death = made.end(child, Exit(1, 3, None))
    assert (death.is_failed_boot, made.group.failure, made.told) == (True, "no module", [])


def test_a_boot_that_hangs_fails(rig: Any) -> None:
    """Within the cluster's ``timeout``, as that of a worker, so that the others need not wait for ever."""
    made = rig()
    late = made.process()
    assert not [action for action in made.turn(29.0) if isinstance(action, policy.Kill)]
    assert policy.Kill(late, LATE) in made.turn(31.0)
    late.kill_reason = LATE
    death = made.end(late, Exit(1, None, 9))
    assert (death.reason, made.group.failure) == ("it was not ready within the timeout of [cluster]",) * 2


def test_one_that_has_run_its_last_task_retires_by_itself(rig: Any) -> None:
    """Its slot is filled at once; a spare does it."""
    made = rig(processes=1, stop_timeout=5.0)
    child, spare = made.ready(0), made.ready(1)
    made.turn(1.0)
    made.kind.hear(child, WantsToRetire("max_tasks"), [], 2.0)
    assert (child.state, child.kill_at) == (ChildState.RETIRING, 7.0)
    made.told.clear()
    assert made.turn(2.0) == [policy.Spawn(1, 1)]
    assert [message.serial for message in made.told] == [spare.serial]
    made.end(child, Exit(1, 0, None))
    assert made.told[-1].cause == "recycled"


def test_a_process_is_told_to_end_by_its_cell_and_its_socket(rig: Any) -> None:
    """The cell before the next task, the socket while it waits for one."""
    made = rig()
    child = made.ready()
    far_end = made.part.socket
    child.stop(System())
    assert child.row[TaskCell.LEAVES] == 1
    far_end.setblocking(False)
    assert far_end.recv(1) == b""
    child.stop(System())


def test_a_process_that_is_only_old_may_end_its_task(rig: Any) -> None:
    """``stop_timeout`` bounds it when it must go."""
    made = rig()
    old, replaced = made.ready(), made.ready(1)
    old.note_retirement("max_lifetime", 1.0, 11.0)
    replaced.note_retirement("reload", 1.0, 11.0)
    assert (old.kill_at, replaced.kill_at) == (float("inf"), 11.0)
    old.note_retirement("stopping", 2.0, 12.0)
    assert old.kill_at == 12.0


def test_scaling_down_ends_those_beyond(rig: Any) -> None:
    """One that has tasks makes place for a spare that has none."""
    made = rig(processes=3, spare=1)
    for slot in range(4):
        made.ready(slot)
    made.turn(1.0)
    made.group.wanted = 2
    actions = made.turn(2.0)
    assert [action.child.slot for action in actions if isinstance(action, policy.Retire)] == [3]
    beyond = next(child for child in made.group.children if child.slot == 2)
    assert beyond.overdue is not None
    assert beyond.overdue.reason == "scaled down"


def test_each_process_gets_the_settings_that_it_does_not_have(rig: Any) -> None:
    """Once, and its cell says so afterwards."""
    made = rig()
    child = made.ready()
    made.turn(1.0)
    assert made.said == []
    made.cluster.settings_version += 1
    made.turn(2.0)
    made.turn(3.0)
    ((told, message),) = made.said
    assert (told, message.version, child.row[TaskCell.SETTINGS]) == (child, 2, 2)


def test_status_tells_of_the_tasks(rig: Any) -> None:
    """How many, since when the present one, and whether it is a spare."""
    made = rig(processes=1)
    child, spare = made.ready(0), made.ready(1)
    made.turn(1.0)
    made.runs(child, 7)
    child.row[TaskCell.TASKS] = 3
    shown = made.kind.status(child, 2.0)
    assert (shown["tasks"], shown["task_started_at"], shown["is_spare"]) == (3, 1.5, False)
    assert (made.kind.status(spare, 2.0)["task_started_at"], made.kind.status(spare, 2.0)["is_spare"]) == (None, True)


def test_nothing_stays_open(rig: Any) -> None:
    """Neither of a process that has ended nor of one that could not be made."""
    made = rig()
    before = len(os.listdir("/proc/self/fd"))
    child = made.process()
    child.close()
    made.open.pop().close()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(OSError):
        patch.setattr(os, "pipe2", lambda flags: (_ for _ in ()).throw(OSError()))
        one, far_end = channel_pair()
        try:
            made.kind.equip(Birth(0, 99, made.group.section, 0, child.row, one, [0], 0.0))
        finally:
            one.close()
            far_end.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_its_socket_is_a_stream(rig: Any) -> None:
    """Of whole tasks in pieces, as long as they may be."""
    assert rig().process().socket.type & socket.SOCK_STREAM
