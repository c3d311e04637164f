"""The master's look at its children's cells, and when it looks again."""

from __future__ import annotations

import math

import pytest

from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.master.children.child import Overdue
from rpccluster.master.children.watch import BUSY_SECONDS, MEMORY_SECONDS, Watch

from ..made_up import RPC_KIND, group, ready, retiring

NOW = 100.0


def test_children_that_serve_need_no_look() -> None:
    """Their signs of life tell their own time."""
    assert Watch().turn(group(ready(0), ready(1)), RPC_KIND.look, NOW) == math.inf


def test_children_that_retire_are_looked_at() -> None:
    """They may have given away what they had."""
    made = group(retiring(0, retired_at=90.0), ready(0))
    assert Watch().turn(made, RPC_KIND.look, NOW) == NOW + BUSY_SECONDS


def test_memory_is_looked_at_where_there_is_a_limit() -> None:
    """Nowhere else does it wake the master."""
    worker = ready(0, ready_at=50.0)
    worker.row[CommonCell.RSS_BYTES] = 1000
    made = group(worker, max_memory=999)
    assert Watch().turn(made, RPC_KIND.look, NOW) == NOW + MEMORY_SECONDS
    assert worker.overdue == Overdue(NOW, "max_memory")


def test_a_limit_that_is_too_low_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each child would be replaced as soon as it may."""
    workers = [ready(slot, ready_at=NOW) for slot in range(2)]
    for worker in workers:
        worker.row[CommonCell.RSS_BYTES] = 1000
    watch = Watch()
    for now in (NOW, NOW + 0.5):
        watch.turn(group(*workers, max_memory=999), RPC_KIND.look, now)
    assert caplog.text.count("max_memory is below what a fresh worker needs") == 1


def test_each_group_has_a_limit_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """One that is too low is told once, also beside another one."""
    watch = Watch()
    for now in (NOW, NOW + 0.5):
        for name, limit in (("workers", 999), ("plugin:a", 998)):
            child = ready(0, ready_at=NOW)
            child.row[CommonCell.RSS_BYTES] = 1000
            watch.turn(group(child, name=name, max_memory=limit), RPC_KIND.look, now)
    assert caplog.text.count("max_memory is below") == 2
