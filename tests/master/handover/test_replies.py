"""Replies that follow their connections, and the calls that died with a worker."""

from __future__ import annotations

import pytest

from rpccluster.ipc.messages import (
    Adopted,
    Closed,
    DonorGone,
    Give,
    Released,
    Reply,
)
from rpccluster.master.children.child import ChildState
from rpccluster.master.kinds.rpc import RPCWorker

from ..made_up import ready, retiring
from .rig import CID, Rig, heard, owned

# -- replies that follow


def test_replies_wait_for_the_adopter(rig: Rig) -> None:
    """Held in transit, in their order; delivered as soon as there is an owner, later ones at once."""
    donor, adopter = rig.add(retiring(), 1), rig.add(ready())
    replies = [Reply(CID, donor.serial, data) for data in (b"one", b"two", b"three", b"four")]
    give = rig.gives(donor, awaited=[[donor.serial, 1]])
    rig.says(donor, replies[0])
    rig.turn()
    rig.says(donor, replies[1])
    assert rig.adopts(adopter) == [give]
    rig.says(donor, replies[2])
    rig.says(donor, replies[3])
    assert rig.read(adopter) == replies
    assert rig.broker.figures.dropped_replies == 0


def test_a_reply_that_came_to_one_who_gave_the_connection_on_follows_it(rig: Rig) -> None:
    """The owner sends it back, behind what it gave; the next one gets it."""
    owner = owned(rig)
    reply = Reply(CID, 3, b"late")
    rig.says(rig.add(retiring()), reply)
    rig.gives(owner)
    assert rig.read(owner) == [reply]
    rig.says(owner, reply)
    owner.state = ChildState.RETIRING
    following = rig.add(ready())
    rig.turn()
    rig.adopts(following)
    assert rig.read(following) == [reply]


def test_a_reply_that_its_owner_has_no_connection_for_is_not_sent_again(rig: Rig) -> None:
    """It would come back for ever. An owner's own reply, of a call from before the connection came back to it, goes."""
    owner = owned(rig)
    late, own = Reply(CID, 3, b"late"), Reply(CID, owner.serial, b"own")
    rig.says(rig.add(retiring()), late)
    assert rig.read(owner) == [late]
    rig.says(owner, late)
    rig.says(owner, own)
    assert rig.read(owner) == [own]
    assert rig.broker.figures.dropped_replies == 1


def test_what_an_owner_died_with_unread_follows_the_connection_it_gave_on(rig: Rig) -> None:
    """A reply that it could not send back any more."""
    owner = owned(rig)
    reply = Reply(CID, 3, b"late")
    rig.says(rig.add(retiring(kill_reason="dying")), reply)
    rig.gives(owner)
    rig.bury(owner)
    following = rig.add(ready())
    rig.turn()
    rig.adopts(following)
    assert reply in rig.read(following)


def test_replies_for_what_is_closed_are_dropped_and_counted(rig: Rig) -> None:
    """And for connections that nobody knows."""
    owner = owned(rig)
    other = rig.add(retiring())
    rig.says(owner, Closed(CID))
    rig.says(other, Reply(CID, 3, b"late"))
    rig.says(other, Reply(4711, 3, b"unknown"))
    rig.says(owner, Closed(4711))
    assert rig.broker.figures.dropped_replies == 2
    assert rig.read(owner) == []


def test_when_all_stops_those_who_retire_answer_what_is_in_transit(rig: Rig) -> None:
    """Nobody else is there, and its calls would get no answer."""
    donor, other = rig.add(retiring(), 2), rig.add(retiring(), 1)
    rig.broker.even_out()
    assert not rig.broker.is_moving
    give = rig.gives(donor)
    assert rig.broker.is_moving
    rig.turn(may_move=False)
    assert rig.adopts(other) == [give] or rig.adopts(donor) == [give]
    assert not rig.broker.is_moving


def test_connections_move_as_long_as_a_donor_has_not_said_how_many(rig: Rig) -> None:
    """They may be on their way, unseen."""
    donor = rig.add(retiring(), 2)
    rig.add(ready())
    rig.turn()
    assert rig.releases() == {donor: 2}
    assert rig.broker.is_moving
    rig.says(donor, Released(0))
    assert not rig.broker.is_moving


def test_callers_wait_while_a_connection_has_been_sent_to_nobody(rig: Rig) -> None:
    """So it goes on before the master starts a process."""
    donor, other = rig.add(retiring(), 1), rig.add(ready())
    assert not rig.broker.callers_wait
    rig.gives(donor)
    assert rig.broker.callers_wait
    rig.turn()
    assert not rig.broker.callers_wait
    rig.adopts(other)


# -- replies that come back


def moved_past_a_reply(rig: Rig, reads: bool = False) -> tuple[RPCWorker, RPCWorker, RPCWorker, Reply]:
    """The donor has answered; the owner gave the connection on before it read that, unless it ``reads``.

    Returns the donor, the one who gave, the present owner, and the reply.
    """
    donor, owner = rig.add(retiring()), rig.add(ready())
    rig.gives(donor, awaited=[[donor.serial, 1], [donor.serial, 2]])
    rig.turn()
    rig.adopts(owner)
    reply = Reply(CID, donor.serial, b"late")
    rig.says(donor, reply)
    if reads:
        assert rig.read(owner) == [reply]
    rig.gives(owner, awaited=[[donor.serial, 1], [donor.serial, 2]][reads:])
    owner.state = ChildState.RETIRING
    following = rig.add(ready())
    rig.turn()
    rig.adopts(following)
    return donor, owner, following, reply


def test_the_news_of_an_end_waits_for_a_reply_that_comes_back(rig: Rig) -> None:
    """The caller would be told that an answered call is lost; only the one unanswered is."""
    donor, owner, following, reply = moved_past_a_reply(rig)
    rig.bury(donor)
    assert rig.read(following) == []
    assert reply in rig.read(owner)
    rig.says(owner, reply)
    assert rig.read(following) == [reply, DonorGone(donor.serial, False, CID)]


def test_the_news_of_an_end_waits_for_no_reply_that_was_read(rig: Rig) -> None:
    """The connection has come without the call that it answers."""
    donor, _, following, _ = moved_past_a_reply(rig, reads=True)
    rig.bury(donor)
    assert rig.read(following) == [DonorGone(donor.serial, False, CID)]


@pytest.mark.parametrize("is_read", [False, True], ids=["unread", "read"])
def test_a_bearer_that_dies_holds_no_news_back(rig: Rig, is_read: bool) -> None:
    """What it had not read comes before; what it had read is lost with it."""
    donor, owner, following, reply = moved_past_a_reply(rig)
    rig.bury(donor)
    if is_read:
        rig.read(owner)
    rig.bury(owner)
    assert rig.read(following) == [*([] if is_read else [reply]), DonorGone(donor.serial, False, CID)]


def test_a_connection_that_moves_on_before_its_reply_comes_back(rig: Rig) -> None:
    """Both find it, in their order, wherever it is."""
    donor, owner, following, reply = moved_past_a_reply(rig)
    rig.gives(following, awaited=[[donor.serial, 1], [donor.serial, 2]])
    following.state = ChildState.RETIRING
    rig.bury(donor)
    last = rig.add(ready())
    rig.turn()
    rig.adopts(last)
    assert rig.read(last) == []
    rig.says(owner, reply)
    assert rig.read(last) == [reply, DonorGone(donor.serial, False, CID)]


def test_a_new_master_hears_of_an_end_behind_the_reply_that_comes_back(rig: Rig) -> None:
    """It has the connection already."""
    donor, owner = rig.add(retiring()), rig.add(ready())
    rig.gives(donor, awaited=[[donor.serial, 1]])
    rig.turn()
    rig.adopts(owner)
    reply = Reply(CID, donor.serial, b"late")
    rig.says(donor, reply)
    ours, theirs = rig.pair()
    rig.broker.give_all_to(ours, rig.now)
    rig.gives(owner, awaited=[[donor.serial, 1]])
    rig.turn()
    rig.bury(donor)
    assert [type(message) for message in heard(theirs)] == [Give]
    rig.says(owner, reply)
    assert heard(theirs) == [reply, DonorGone(donor.serial, False)]


# -- donors that die


def test_owners_hear_who_has_died(rig: Rig) -> None:
    """For each connection that awaits a reply of the dead; nobody else hears anything."""
    dies, other = rig.add(retiring()), rig.add(retiring())
    owner = owned(rig, awaited=[[dies.serial, 1], [other.serial, 2]])
    bystander = owned(rig, CID + 1, awaited=[[other.serial, 3]])
    rig.bury(dies)
    assert rig.read(owner) == [DonorGone(dies.serial, False, CID)]
    assert rig.read(bystander) == []
    rig.says(owner, Closed(CID))
    rig.bury(other)
    assert rig.read(owner) == []
    assert rig.read(bystander) == [DonorGone(other.serial, False, CID + 1)]


def test_a_reply_that_the_master_holds_comes_before_the_news_of_the_death(rig: Rig) -> None:
    """Its connection was adopted, which the master has yet to read, when the donor of another one ended."""
    donor, adopter = rig.add(retiring(), 2), rig.add(ready())
    for cid in (1, 2):
        rig.gives(donor, cid, awaited=[[donor.serial, cid]])
    rig.turn()
    assert len(rig.read(adopter)) == 2
    rig.says(adopter, Adopted(1))
    rig.says(donor, Reply(2, donor.serial, b"in time"))
    rig.bury(donor)
    assert rig.read(adopter) == [DonorGone(donor.serial, False, 1)]
    rig.says(adopter, Adopted(2))
    assert rig.read(adopter) == [Reply(2, donor.serial, b"in time"), DonorGone(donor.serial, False, 2)]


def test_a_new_owner_hears_who_has_died_before_it_came(rig: Rig) -> None:
    """Behind the replies that came; of those alone whose replies the connection awaits."""
    donor, living, stranger = rig.add(retiring(), 1), rig.add(retiring()), rig.add(retiring())
    give = rig.gives(donor, awaited=[[donor.serial, 1], [living.serial, 2], [donor.serial, 3]])
    rig.says(donor, Reply(CID, donor.serial, b"in time"))
    rig.bury(donor)
    rig.bury(stranger)
    adopter = rig.add(ready())
    rig.turn()
    assert rig.adopts(adopter) == [give]
    assert rig.read(adopter) == [Reply(CID, donor.serial, b"in time"), DonorGone(donor.serial, False, CID)]


def test_a_donor_that_died_long_before_is_told_too(rig: Rig) -> None:
    """An owner gave the connection on in the moment in which the death was told: the next one learns it."""
    donor = rig.add(retiring())
    owner = owned(rig, awaited=[[donor.serial, 1]])
    with rig.client(CID) as theirs:
        owner.far_end.send(Give(CID, [], False, b"", b"", [[donor.serial, 1]]), [theirs.fileno()])
    rig.workers.remove(donor)
    rig.broker.note_gone(donor, rig.now)
    rig.hear()
    owner.state = ChildState.RETIRING
    following = rig.add(ready())
    rig.turn()
    rig.adopts(following)
    assert rig.read(following) == [DonorGone(donor.serial, False, CID)]
