"""When the master looks after what somebody may have removed."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from rpccluster.address import parse_address
from rpccluster.master.resources.upkeep import IDLE_SECONDS, LOOK_SECONDS, Upkeep

from ..made_up import cluster


def upkeep(*addresses: str, pidfile: Any = None) -> tuple[Any, list[str]]:
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
    return Upkeep(cluster(listeners=listeners), ownership, lambda listener: None, lambda: False), looked_at


def test_without_paths_there_is_nothing_to_look_after() -> None:
    """An address of TCP cannot be removed."""
    assert upkeep("tcp://127.0.0.1:1")[0].wake_at == math.inf


def test_paths_are_looked_after_now_and_then() -> None:
    """When something else wakes the master, too, but not for each event."""
    made, looked_at = upkeep("unix:///a")
    made.turn(100.0)
    assert (looked_at, made.wake_at) == (["unix:///a"], 100.0 + IDLE_SECONDS)
    made.turn(100.0 + LOOK_SECONDS / 2)
    assert len(looked_at) == 1
    made.turn(100.0 + LOOK_SECONDS)
    assert (len(looked_at), made.wake_at) == (2, 100.0 + LOOK_SECONDS + IDLE_SECONDS)


def test_a_pidfile_is_a_path_too() -> None:
    """It may be removed, or overwritten."""
    pidfile = SimpleNamespace(is_there=lambda: True, is_single=False)
    assert upkeep("tcp://127.0.0.1:1", pidfile=pidfile)[0].wake_at < math.inf
