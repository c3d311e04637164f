"""Who owns what has moved, and whose replies will not come: every rule, on made-up workers."""

from __future__ import annotations

import pytest

from rpccluster.ipc.messages import DonorGone, Give
from rpccluster.master.handover.owners import Ended, Owners, ended_with

from .made_up import ready


def give(cid: int, *serials: int) -> Give:
    """A connection that awaits a reply of each of these workers."""
    return Give(cid, [], False, b"", b"", [[serial, 5] for serial in serials])


@pytest.mark.parametrize(
    ("gone", "ended"),
    [(DonorGone(5, False), {5}), (DonorGone(5, True), {3, 4, 5}), (DonorGone(5, False, 7), {5})],
    ids=["one", "it and the older ones", "for one connection"],
)
def test_which_workers_have_ended(gone: DonorGone, ended: set[int]) -> None:
    """That one, and those before it if they are meant, too."""
    assert {serial for serial in (3, 4, 5, 6) if ended_with(serial, gone)} == ended


def test_the_owner_is_who_has_adopted_last() -> None:
    """Until it gives the connection on, or that ends."""
    owners, one, other = Owners(), ready(), ready()
    assert owners.of(1) is None
    owners.note_adopted(give(1), one)
    owners.note_adopted(give(1), other)
    assert owners.of(1) is other
    owners.forget(1)
    owners.forget(1)
    assert owners.of(1) is None


def test_a_workers_connections_end_with_it() -> None:
    """Nobody else's."""
    owners, one, other = Owners(), ready(), ready()
    for cid, worker in ((1, one), (2, other), (3, one)):
        owners.note_adopted(give(cid, 9), worker)
    owners.forget_worker(one)
    assert [owners.of(cid) for cid in (1, 2, 3)] == [None, other, None]
    assert owners.that_await(DonorGone(9, False)) == [(2, other)]


def test_owners_that_await_a_reply_of_one_that_has_ended() -> None:
    """All of them, or the one of the connection that is meant."""
    owners, one, other = Owners(), ready(), ready()
    owners.note_adopted(give(1, 5, 6), one)
    owners.note_adopted(give(2, 6), other)
    owners.note_adopted(give(3), other)
    assert owners.that_await(DonorGone(6, False)) == [(1, one), (2, other)]
    assert owners.that_await(DonorGone(5, True)) == [(1, one)]
    assert owners.that_await(DonorGone(6, False, 2)) == [(2, other)]
    assert owners.that_await(DonorGone(6, False, 3)) == owners.that_await(DonorGone(6, False, 4)) == []


def test_a_master_knows_its_own_living_workers() -> None:
    """Of those that it has started, whoever does not live has ended; of the others it knows what it was told."""
    ended = Ended(first_serial=100)
    assert ended.own(give(1, 99, 100, 101), living={101}) == {100}
    ended.note(DonorGone(100, False))
    assert ended.before(give(1, 99, 100)) == set()
    ended.note(DonorGone(50, False))
    assert ended.before(give(1, 49, 50, 51)) == {50}


def test_what_was_told_of_one_connection_is_for_that_one() -> None:
    """A later word for all covers it."""
    ended = Ended(first_serial=100)
    ended.note(DonorGone(50, False, 1))
    assert (ended.before(give(1, 50)), ended.before(give(2, 50))) == ({50}, set())
    ended.note(DonorGone(50, False))
    assert (ended.before(give(1, 50)), ended.before(give(2, 50))) == ({50}, {50})


def test_the_end_of_the_old_master_leaves_the_new_ones_workers_alone() -> None:
    """The very first of them, too: all that is told is of those before it."""
    ended = Ended(first_serial=100)
    ended.note(DonorGone(ended.first_serial - 1, True))
    assert ended.before(give(1, 3, 99, 100, 101)) == {3, 99}
