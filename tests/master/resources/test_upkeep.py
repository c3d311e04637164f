"""When the master looks after what somebody may have removed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from rpccluster.address import parse_address
from rpccluster.errors import StartError
from rpccluster.master.loop import Loop
from rpccluster.master.phases import Phase
from rpccluster.master.resources.upkeep import IDLE_SECONDS, LOOK_SECONDS, SETTLE_SECONDS, Upkeep
from rpccluster.system import System
from rpccluster.system.files import FileWatch

from ..made_up import cluster

made_here: list[Upkeep] = []


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    yield
    while made_here:
        made_here.pop().close()


def upkeep(*addresses: str, pidfile: Any = None, system: System | None = None) -> tuple[Any, list[str]]:
    """One of a cluster that listens at ``addresses``, and what was looked at."""
    looked_at: list[str] = []

    def look(address: str) -> bool:
        looked_at.append(address)
        return True

    listeners: Any = [
        SimpleNamespace(wanted=parse_address(address), is_there=lambda address=address: look(address))
        for address in addresses
    ]
    ownership: Any = SimpleNamespace(control=SimpleNamespace(listener=None), pidfile=pidfile)
    made = Upkeep(
        system or System(), FileWatch(), cluster(listeners=listeners), ownership, lambda listener: None, lambda: False
    )
    made_here.append(made)
    return made_here[-1], looked_at


def test_without_paths_there_is_nothing_to_look_after() -> None:
    """An address of TCP cannot be removed."""
    assert upkeep("tcp://127.0.0.1:1")[0].wake_at == math.inf


def test_paths_that_are_not_followed_are_checked_every_second() -> None:
    """There may be no file, or no way to be told of its changes."""
    made, looked_at = upkeep("unix:///no/such/path")
    made.turn(100.0)
    assert (len(looked_at), made.wake_at) == (1, 100.0 + LOOK_SECONDS)
    made.turn(100.0 + LOOK_SECONDS / 2)
    assert len(looked_at) == 1
    made.turn(made.wake_at)
    assert len(looked_at) == 2


@pytest.mark.parametrize(
    "change", [os.unlink, lambda path: os.rename(path, f"{path}.old"), lambda path: path.write_text("x")]
)
def test_a_change_is_told(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """Until then there is time; after it the check waits until whoever clears a folder is done."""
    path = tmp_path / "it"
    path.touch()
    loop = Loop()
    made, looked_at = upkeep(f"unix://{path}")
    made.watch(loop)
    made.turn(100.0)
    assert made.wake_at == 100.0 + IDLE_SECONDS
    change(path)
    before = monotonic()
    loop.turn(10.0)
    assert before <= made.wake_at - SETTLE_SECONDS <= monotonic()
    made.turn(made.wake_at - 0.01)
    assert len(looked_at) == 1
    made.turn(made.wake_at)
    assert len(looked_at) == 2
    loop.close()


def test_nothing_wakes_it_while_nothing_may_be_restored() -> None:
    """The end of a start, or of an upgrade, is an event: the paths are checked then."""
    made, looked_at = upkeep("unix:///no/such/path")
    made._cluster.phase = Phase.STARTING
    made.turn(100.0)
    assert (looked_at, made.wake_at) == ([], math.inf)
    made._cluster.phase = Phase.RUNNING
    made.turn(101.0)
    assert (len(looked_at), made.wake_at) == (1, 101.0 + LOOK_SECONDS)


def test_a_pidfile_is_a_path_too() -> None:
    """It may be removed, or overwritten."""
    pidfile = SimpleNamespace(path="/no/such/path", is_there=lambda: True, is_single=False)
    assert upkeep("tcp://127.0.0.1:1", pidfile=pidfile)[0].wake_at < math.inf


def test_what_cannot_be_restored_is_tried_again_in_time(tmp_path: Path) -> None:
    """Not one check too late, because the failure itself took a moment; once it is there again, that is forgotten."""
    time, tried, is_there = [100.0], [], [False]

    def make_again(pid: int) -> None:
        tried.append(time[0])
        time[0] += 0.01
        raise StartError("no room")

    path = tmp_path / "pid"
    path.touch()
    pidfile: Any = SimpleNamespace(path=str(path), is_there=lambda: is_there[0], is_single=False, make_again=make_again)
    system: Any = SimpleNamespace(monotonic=lambda: time[0], getpid=lambda: 1)
    made, _ = upkeep(pidfile=pidfile, system=system)
    while time[0] < 105.0:
        made.turn(time[0])
        time[0] = max(time[0], made.wake_at)
    assert [round(at) for at in tried] == [100, 104]
    is_there[0] = True
    made.turn(time[0])
    assert made.wake_at == time[0] + IDLE_SECONDS
