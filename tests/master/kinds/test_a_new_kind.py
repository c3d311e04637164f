"""A kind of thirty lines, known nowhere else: its processes are started, kept, replaced, stopped and shown.

The processes are real; the master's loop is turned by the test.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from rpccluster.child.assignment import Assignment, KindPart, Run
from rpccluster.child.life import live
from rpccluster.config import Options
from rpccluster.ipc.messages import Ready
from rpccluster.ipc.packets import Passing
from rpccluster.ipc.scoreboard import FIRST_OWN_CELL, CommonCell
from rpccluster.live_settings import NO_SETTINGS
from rpccluster.log import LogFiles
from rpccluster.master.children.actions import Actions
from rpccluster.master.children.child import Birth, Child
from rpccluster.master.children.group import Group, Overlap
from rpccluster.master.children.order import Finish, Started
from rpccluster.master.children.roster import Roster
from rpccluster.master.control.status import of_group
from rpccluster.master.guard import Guard
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.kind import Booted
from rpccluster.master.loop import Loop
from rpccluster.master.phases import Phase
from rpccluster.protocol.codec import encoded, unpack
from rpccluster.system import Reserve, System

from ..made_up import finished

# -- the kind


class Sleeper:
    """Processes that sleep, and count how often; TERM ends them."""

    name = noun = "sleeper"

    def equip(self, birth: Birth) -> tuple[Child, KindPart]:
        return Child(birth), KindPart()

    def hear(self, child: Child, message: Passing, descriptors: list[int], now: float) -> Booted | None:
        return Booted(child) if isinstance(message, Ready) else None

    def arrange(self, group: Group, now: float) -> None:
        pass

    def look(self, group: Group, child: Child, now: float) -> None:
        pass

    def note_end(self, child: Child) -> None:
        pass

    def status(self, child: Child, now: float) -> dict[str, Any]:
        return {"naps": child.row.cells[FIRST_OWN_CELL]}


def load(assignment: Assignment) -> Run:
    return partial(sleep, assignment)


def sleep(assignment: Assignment) -> int:
    assignment.channel.send(Ready([]))
    while True:
        assignment.row[CommonCell.HEARTBEAT] = time.monotonic_ns()
        assignment.row.cells[FIRST_OWN_CELL] += 1
        time.sleep(0.01)


# -- its master


class Rig:
    """One group of sleepers, and as much of a master as runs it."""

    def __init__(self) -> None:
        system, guard = System(), Guard()
        self.kind = Sleeper()
        self.loop = Loop(guard)
        options = Options(service="a:b", restart_delay=0.1)
        self.section = SimpleNamespace(
            generation=1, options=options, logs=LogFiles("", ""), settings=NO_SETTINGS, staged=None
        )
        self.phase = Phase.STARTING
        self.group = Group("sleepers", self.kind, self.section, self.phase, wanted=2)
        roster = Roster(system, self.loop, partial(live, load=load), 1)
        actions = Actions(system, roster, Reserve(4))
        self.groups = Groups(system, guard, roster, actions, {"sleeper": self.kind}, [self.group])
        self.most_in_a_slot = 0

    def turn(self) -> None:
        self.groups.tell(self.phase)
        list(self.groups.collect())
        self.groups.act()
        slots = [child.slot for child in self.group.children]
        self.most_in_a_slot = max([self.most_in_a_slot, *map(slots.count, slots)])
        self.loop.turn(0.02)

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 30.0
        while not (found := condition()):
            assert time.monotonic() < deadline, self.shown()
            self.turn()
        return found

    def start(self) -> dict[int, int]:
        self.until(lambda: self.groups.course(self.phase) == Started())
        self.phase = Phase.RUNNING
        return self.pids()

    def shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = unpack(encoded(finished(of_group(self.group, self.kind.status, [], time.monotonic))[0]))
        return shown

    def pids(self) -> dict[int, int]:
        return {child.slot: child.pid for child in self.group.ready()}

    def stop(self) -> None:
        self.phase = Phase.STOPPING
        self.until(lambda: self.groups.course(self.phase) == Finish())


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Whatever happens, no process of it is left."""
    made = Rig()
    yield made
    for child in made.group.children:
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
    made.loop.close()


def test_it_is_started_and_shown(rig: Rig) -> None:
    """With what its kind adds."""
    pids = rig.start()
    assert sorted(pids) == [0, 1]
    rig.until(lambda: all(process["naps"] > 1 for process in rig.shown()["processes"]))
    shown = rig.shown()
    assert (shown["name"], shown["kind"], shown["state"], shown["wanted"]) == ("sleepers", "sleeper", "ready", 2)
    assert [(each["slot"], each["pid"], each["state"]) for each in shown["processes"]] == [
        (0, pids[0], "ready"),
        (1, pids[1], "ready"),
    ]
    rig.stop()


def test_it_is_kept(rig: Rig) -> None:
    """One that is killed has a successor, and its end is told."""
    pids = rig.start()
    os.kill(pids[0], signal.SIGKILL)
    rig.until(lambda: rig.pids().get(0) not in (None, pids[0]))
    assert rig.pids()[1] == pids[1]
    first = rig.shown()["processes"][0]
    assert (first["restarts"], [death["signal"] for death in first["deaths"]]) == (1, [signal.SIGKILL])
    rig.stop()


@pytest.mark.parametrize("overlap", list(Overlap), ids=lambda overlap: overlap.name)
def test_it_is_replaced(rig: Rig, overlap: Overlap) -> None:
    """One after another; with a successor beside it, or never two in a slot."""
    rig.group.overlap = overlap
    pids = rig.start()
    rig.section.generation = 2
    rig.group.roll(time.monotonic())
    rig.until(lambda: rig.group.has_rolled() and rig.group.is_settled() and len(rig.group.children) == 2)
    assert not set(rig.pids().values()) & set(pids.values())
    assert {child.generation for child in rig.group.children} == {2}
    assert rig.most_in_a_slot == (2 if overlap is Overlap.SUCCESSOR_FIRST else 1)
    rig.stop()


def test_it_is_stopped(rig: Rig) -> None:
    """By TERM: it has no other farewell. Nothing is left of it."""
    pids = rig.start()
    rig.stop()
    assert rig.group.children == []
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("part", ["arrange", "look"])
def test_a_kind_that_fails_at_every_turn_starts_and_ends(
    rig: Rig, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its fault is logged; the master goes on to start, to replace and to stop its processes, and so can end."""

    def fail(*_arguments: object) -> None:
        raise KeyError("a fault of the kind")

    monkeypatch.setattr(rig.kind, part, fail)
    first = rig.start()
    os.kill(first[0], signal.SIGKILL)
    rig.until(lambda: rig.pids().keys() == first.keys() and rig.pids()[0] != first[0])
    rig.stop()
    assert not rig.group.children
    assert "a fault of the kind" in caplog.text
