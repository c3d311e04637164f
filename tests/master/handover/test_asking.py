"""Asking workers for connections: those that retire, and the fullest, through a broker."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpccluster.ipc.messages import (
    Released,
)
from rpccluster.ipc.scoreboard import Cell
from rpccluster.master.children.child import ChildState
from rpccluster.master.handover.placement import (
    WINDOW,
)
from rpccluster.master.handover.transit import REST_SECONDS
from rpccluster.master.kinds.rpc import RPCWorker

from ..made_up import booting, ready, retiring
from .rig import CID, Rig

# -- asking


def test_the_retiring_are_asked_for_all_they_have(rig: Rig) -> None:
    """Once; again when they have said that they are done, and not at once if that was nothing."""
    leaves = rig.add(retiring(), 5)
    rig.add(ready())
    rig.turn()
    assert rig.releases() == {leaves: 5}
    rig.turn()
    assert rig.releases() == {}
    rig.says(leaves, Released(2))
    leaves.row[Cell.CONNECTIONS] = 3
    rig.turn()
    assert rig.releases() == {leaves: 3}
    rig.says(leaves, Released(0))
    rig.turn()
    assert rig.releases() == {}
    rig.now += REST_SECONDS
    rig.turn()
    assert rig.releases() == {leaves: 3}


@pytest.mark.parametrize(
    ("worker", "connections"),
    [(retiring(), 0), (retiring(kill_reason="late"), 5), (ready(), 5), (booting(), 5)],
    ids=["empty", "killed", "serving", "booting"],
)
def test_others_are_not_asked(rig: Rig, worker: RPCWorker, connections: int) -> None:
    """Nor is anybody when all stop."""
    rig.add(worker, connections)
    rig.add(ready(), 5)
    rig.turn()
    assert rig.releases() == {}
    rig.add(retiring(), 5)
    rig.turn(may_move=False)
    assert rig.releases() == {}


def test_no_more_are_asked_for_than_somebody_can_take(rig: Rig) -> None:
    """Over all who are asked, with those on their way and those that nobody has yet."""
    one, two, full = rig.add(retiring(), 5), rig.add(retiring(), 5), rig.add(ready(), 10, limit=10)
    rig.turn()
    assert rig.releases() == {}
    full.row[Cell.CONNECTION_LIMIT] = 17
    rig.turn()
    assert rig.releases() == {one: 5, two: 2}
    for cid in range(1, 4):
        rig.gives(one, cid)
    rig.says(one, Released(3))
    rig.turn()
    assert rig.releases() == {one: 2}


def test_one_whose_greenlets_are_all_taken_gets_none(rig: Rig) -> None:
    """It would not read them: neither in place of a worker that retires, nor to even the counts out."""
    one, two, full = rig.add(ready(), 30), rig.add(ready(), 10), rig.add(ready(), 0)
    full.row[Cell.GREENLETS_TAKEN_AT] = 1
    rig.broker.even_out()
    rig.turn()
    assert rig.releases() == {one: 10}
    rig.gives(one, CID)
    rig.turn()
    assert (two.given, full.given) == (1, 0)


def test_no_more_are_on_their_way_than_the_window(rig: Rig) -> None:
    """Descriptors in flight count per user: those granted and those in transit together."""
    one, two = rig.add(retiring(), WINDOW - 4), rig.add(retiring(), 50)
    rig.add(ready(kill_reason="dying"), 0, limit=10_000)
    rig.add(ready(), 0, limit=10_000)
    rig.turn()
    assert rig.releases() == {one: WINDOW - 4, two: 4}
    for cid in range(1, 11):
        rig.gives(one, cid)
    rig.says(two, Released(0))
    rig.now += REST_SECONDS
    rig.turn()
    assert rig.releases() == {}
    rig.says(one, Released(10))
    rig.turn()
    asked = rig.releases()
    assert sum(asked.values()) + rig.broker.in_transit == WINDOW


def test_who_has_ended_owes_nothing(rig: Rig) -> None:
    """What it was granted is free for others."""
    dies, other = rig.add(retiring(), 10), rig.add(retiring(), 10)
    rig.add(ready(), 0, limit=10)
    rig.turn()
    assert rig.releases() == {dies: 10}
    rig.bury(dies)
    rig.turn()
    assert rig.releases() == {other: 10}


# -- evening out


@pytest.mark.parametrize(
    "counts",
    [[], [9], [5, 5], [5, 6], [100, 110], [0, 1, 1], [50, 55, 52], [19, 20, 21]],
    ids=str,
)
def test_what_is_even_enough_stays(rig: Rig, counts: list[int]) -> None:
    """One more or fewer, or a tenth of the mean, is worth no move."""
    for count in counts:
        rig.add(ready(), count)
    rig.broker.even_out()
    rig.turn()
    assert not rig.broker.is_uneven
    assert rig.releases() == {}


def test_it_waits_for_those_that_boot_and_for_what_is_under_way(rig: Rig) -> None:
    """A booting worker will change the counts; so will what moves for another reason."""
    full, empty, boots = rig.add(ready(), 10), rig.add(ready()), rig.add(booting())
    rig.broker.even_out()
    rig.turn()
    assert rig.releases() == {}
    boots.state = ChildState.READY
    rig.turn()
    assert rig.releases() == {full: 6}
    rig.turn()
    rig.gives(full)
    rig.turn()
    assert rig.releases() == {}
    assert rig.broker.is_uneven
    assert empty.connection_count == 0


def test_it_is_not_done_unless_asked_for(rig: Rig) -> None:
    """`rebalance = false` must be able to have its way; and nothing moves when all stop."""
    rig.add(ready(), 10)
    rig.add(ready())
    rig.turn()
    assert rig.releases() == {}
    rig.broker.even_out()
    rig.turn(may_move=False)
    assert rig.releases() == {}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_it_comes_to_an_end_and_is_even_then(counts: list[int]) -> None:
    """Whatever the counts, in few rounds, and no connection moves twice but for rounding."""
    rig = Rig()
    try:
        workers = [rig.add(ready(), count) for count in counts]
        rig.broker.even_out()
        moved = 0
        for _ in range(200):
            rig.turn()
            for worker, number in rig.releases().items():
                for _ in range(number):
                    moved += 1
                    rig.gives(worker, moved)
                rig.says(worker, Released(number))
            for worker in workers:
                rig.adopts(worker)
            if not rig.broker.is_uneven:
                break
        assert not rig.broker.is_uneven, [worker.connection_count for worker in workers]
        after = [worker.connection_count for worker in workers]
        assert sum(after) == sum(counts)
        assert max(after) - min(after) <= max(1, 0.1 * sum(after) / len(after))
        assert moved <= sum(max(0, count - sum(counts) // len(counts)) for count in counts)
    finally:
        rig.close()
