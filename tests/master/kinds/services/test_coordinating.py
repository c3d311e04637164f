"""What the coordinator is told, and when the master looks at that again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rpccluster.ipc.messages import Message, Present
from rpccluster.master.kinds.services.coordinating import Coordinating
from rpccluster.master.phases import Phase


class Rig:
    """A master with a ready coordinator, and workers of which some are ready."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ready: list[object] = [object()]
        self.said: list[Message] = []
        self.cluster: Any = SimpleNamespace(phase=Phase.RUNNING)
        workers = SimpleNamespace(unled="", ready=lambda: self.ready)
        self.groups: Any = SimpleNamespace(named=lambda name: workers)
        coordinator: Any = SimpleNamespace(processes=lambda: [SimpleNamespace(is_ready=True)])
        roster: Any = SimpleNamespace(say=lambda child, message: self.said.append(message))
        self.coordinating = Coordinating(self.cluster, coordinator, roster, lambda: self.now, 7.0)
        self.coordinating.turn(self.groups)


def test_workers_that_are_replaced_make_no_news() -> None:
    """The registry lists the cluster a little longer than one of them is ready."""
    rig = Rig()
    assert rig.said == [Present("serving", 7.0)]
    rig.ready.clear()
    rig.coordinating.turn(rig.groups)
    assert len(rig.said) == 1
    rig.now = rig.coordinating.wake_at
    rig.coordinating.turn(rig.groups)
    assert rig.said[1:] == [Present("", 7.0)]
    assert rig.coordinating.wake_at == float("inf")


def test_a_master_that_leaves_waits_for_nothing() -> None:
    """The new master tells the coordinator then, whatever this one was waiting for."""
    rig = Rig()
    rig.ready.clear()
    rig.coordinating.turn(rig.groups)
    rig.cluster.phase = Phase.LEAVING
    rig.coordinating.turn(rig.groups)
    assert rig.coordinating.wake_at == float("inf")
    assert len(rig.said) == 1
