"""What the parts of a master do when the other master of an upgrade has done something."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.ipc.messages import Accept, Adopted, Asked, Closed, Counted, GroupStopped, StopGroup
from rpccluster.master.guard import Guard
from rpccluster.master.kinds.kind import Booted
from rpccluster.master.parts import Parts
from rpccluster.master.phases import Phase
from rpccluster.master.supervisor import Supervisor
from rpccluster.master.takeover import Takeover
from rpccluster.master.upgrade import new_master, old_master
from rpccluster.master.upgrade.new_master import Stage

from .made_up import cluster, group, ready

PID = 7


class Noted:
    """A part that notes what it is told, as its name and what with."""

    def __init__(self, name: str, done: list[Any]) -> None:
        self._name = name
        self._done = done

    def __getattr__(self, verb: str) -> Any:
        return lambda *given: self._done.append((f"{self._name}.{verb}", *given))


class Rig:
    """A master of made-up parts; ``done`` is what they were told, in order."""

    def __init__(self, phase: Phase) -> None:
        self.done: list[Any] = []
        self.worker = ready(0)
        self.cluster = cluster(phase=phase)
        self.inherited: dict[str, int] = {}
        totals = SimpleNamespace(untold=lambda rows: {"calls": 3}, note_inherited=self.inherited.update)
        parts: Any = SimpleNamespace(
            cluster=self.cluster,
            guard=Guard(),
            pid=PID,
            now=lambda: 50.0,
            workers=group(self.worker, section=self.cluster),
            rpc=SimpleNamespace(totals=totals),
            groups=SimpleNamespace(tell=lambda phase: None),
            operations=SimpleNamespace(methods=dict),
            start=SimpleNamespace(report=self.part("report")),
            new_master=SimpleNamespace(stage=Stage.NONE, pid=8, say=self.part("new master").say),
            **{
                name: self.part(name.replace("_", " "))
                for name in ("broker", "brokers", "control", "notices", "old_master")
            },
            **{name: self.part(name.replace("_", " ")) for name in ("ownership", "roster", "signal_commands")},
            taking=self.part("taking"),
            giving=self.part("giving"),
        )
        self.parts = parts
        self.takeover = Takeover(parts)

    def part(self, name: str) -> Any:
        return Noted(name, self.done)

    def verbs(self) -> list[str]:
        return [each[0] for each in self.done]


def test_a_new_master_takes_over() -> None:
    """It owns everything before anybody is told so, the old master last."""
    rig = Rig(Phase.STANDBY)
    rig.takeover.heed(old_master.MayTakeOver())
    assert rig.cluster.phase is Phase.RUNNING
    assert rig.verbs() == [
        "ownership.take_over",
        "control.serve",
        "roster.say",
        "report.send",
        "notices.tell_ready",
        "taking.names",
        "old master.say_took_over",
        "taking.begin",
    ]
    assert ("roster.say", rig.worker, Accept()) in rig.done


def test_a_new_master_that_quits_takes_nothing_over() -> None:
    """Its end, unanswered, tells the old master to go on."""
    rig = Rig(Phase.QUITTING)
    rig.takeover.heed(old_master.MayTakeOver())
    assert (rig.cluster.phase, rig.done) == (Phase.QUITTING, [])


def test_a_new_master_that_is_given_up_has_failed() -> None:
    """It has touched nothing."""
    rig = Rig(Phase.STANDBY)
    rig.takeover.heed(old_master.GaveUp())
    assert (rig.takeover.has_failed, rig.done) == (True, [])


def test_what_the_old_master_says_goes_where_it_belongs() -> None:
    """Counts, commands, connections; when it has ended, nothing more comes."""
    rig = Rig(Phase.RUNNING)
    rig.cluster.has_old_master = True
    channel: Any = object()
    for message in (Counted({"calls": 5}), Asked("ttin"), Closed(1), GroupStopped("plugin:x")):
        rig.takeover.heed(old_master.Gave(channel, message, []))
    rig.takeover.heed(old_master.OldMasterEnded())
    assert rig.inherited == {"calls": 5}
    assert rig.done == [
        ("signal commands.do_too", Asked("ttin")),
        ("brokers.hear_old_master", channel, Closed(1), [], 50.0),
        ("taking.note_stopped", "plugin:x"),
        ("brokers.note_old_master_gone",),
        ("taking.lose_old_master", 50.0),
    ]
    assert not rig.cluster.has_old_master


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.DRAINED])
def test_an_old_master_leaves(phase: Phase) -> None:
    """It gives everything, tells its counts, names the new one to systemd, and closes its copies."""
    rig = Rig(phase)
    rig.parts.new_master.stage = Stage.DONE
    channel: Any = object()
    rig.takeover.heed(new_master.TakenOver(channel, ["plugin:x"]))
    assert rig.cluster.phase is Phase.LEAVING
    assert rig.done == [
        ("brokers.give_all_to", channel, 50.0),
        ("new master.say", Counted({"calls": 3})),
        ("notices.leave_to", 8),
        ("ownership.leave",),
        ("giving.begin", ["plugin:x"]),
    ]


def test_an_old_master_takes_back_what_may_have_been_taken() -> None:
    """Its word to a master before it, the pidfile, and systemd's idea of the main process."""
    rig = Rig(Phase.RUNNING)
    rig.takeover.heed(new_master.Undone())
    assert rig.cluster.phase is Phase.RUNNING
    assert rig.done[0] == ("old master.say_why_it_ends", new_master.TAKEN_BACK)
    assert rig.verbs() == ["old master.say_why_it_ends", "ownership.sign", "notices.tell_main"]


@pytest.mark.parametrize(
    ("phase", "then"), [(Phase.LEAVING, Phase.STOPPING), (Phase.QUITTING, Phase.QUITTING)], ids=["leaving", "quitting"]
)
def test_an_old_master_outlives_the_new_one(phase: Phase, then: Phase) -> None:
    """There is nobody left to give to: it finishes what runs."""
    rig = Rig(phase)
    rig.takeover.heed(new_master.Said(Adopted(4)))
    rig.takeover.heed(new_master.Said(StopGroup("plugin:x")))
    rig.takeover.heed(new_master.NewMasterEnded())
    assert rig.cluster.phase is then
    assert rig.verbs() == ["brokers.hear_new_master", "giving.heed", "brokers.lose_new_master", "giving.end"]


def test_one_message_that_cannot_be_heeded_takes_no_other_along() -> None:
    """On either side: a connection may be among those behind it."""
    rig = Rig(Phase.RUNNING)
    channel: Any = object()
    heard: list[Any] = []

    def hear(channel: Any, message: Any, descriptors: list[int], now: float) -> None:
        heard.append(message)
        if message == Closed(1):
            raise OSError("no descriptor left")

    parts = rig.parts
    parts.brokers = SimpleNamespace(hear_old_master=hear)
    parts.told = deque(old_master.Gave(channel, Closed(number), []) for number in (1, 2))
    parts.groups = SimpleNamespace(tell=lambda phase: None, collect=list)
    parts.new_master.is_committing, parts.new_master.check_deadline = True, lambda now: None
    Supervisor(parts)._collect()
    assert (heard, list(parts.told)) == ([Closed(1), Closed(2)], [])


@pytest.mark.parametrize("questioned_at", [None, 49.9])
def test_a_child_that_is_ready_too_late_accepts_nothing(questioned_at: float | None) -> None:
    """It is killed in a moment, since it took longer than timeout; its callers would be cut off."""
    rig = Rig(Phase.RUNNING)
    rig.worker.questioned_at = questioned_at
    parts = rig.parts
    parts.code_watch, parts.groups = rig.part("code watch"), None
    Supervisor(parts)._note_booted(Booted(rig.worker))
    assert (("roster.say", rig.worker, Accept()) in rig.done) is (questioned_at is None)


def test_a_takeover_is_heeded_before_an_order_that_came_with_it() -> None:
    """Such as TERM of the old master of this one: it is for the new master, which owns everything."""
    order, taken = old_master.Gave(None, Asked("term"), []), new_master.TakenOver(None)  # type: ignore[arg-type]
    said = new_master.Said(Counted({}))
    parts: Any = SimpleNamespace(told=deque([order]))
    Parts._hear_new_master(parts, taken)
    Parts._hear_new_master(parts, said)
    assert list(parts.told) == [taken, order, said]


@pytest.mark.parametrize("phase", list(Phase))
def test_a_drained_new_master_goes_on_with_its_plugins(phase: Phase) -> None:
    """A drain means the workers; what ends ends them, too."""
    rig = Rig(phase)
    told: dict[str, Any] = {}
    rig.parts.taking = SimpleNamespace(turn=lambda now, **named: told.update(named))
    rig.takeover.turn(50.0)
    assert told == {"is_ending": phase in (Phase.LEAVING, Phase.STOPPING, Phase.QUITTING)}
