"""An upgrade, on both sides: what the new master is given, and what the old one gives."""

from __future__ import annotations

import pytest

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import (
    Adopted,
    DonorGone,
    Give,
    Message,
    Refused,
    Released,
    Reply,
)
from rpccluster.master.children.child import ChildState
from rpccluster.master.handover.placement import (
    ALONE_SECONDS,
    WINDOW,
)
from rpccluster.master.handover.transit import REST_SECONDS

from ..made_up import ready, retiring
from .rig import CID, Rig, given_to, heard, owned

# -- the new master


def test_a_new_master_gets_everything(rig: Rig) -> None:
    """What was held, what an adopter had not read, what comes later; each with the replies that came."""
    to_new_master, new_master = rig.pair()
    donor, adopter = rig.add(retiring(), 3), rig.add(ready(), 0, limit=1)
    unread = rig.gives(donor, 1)
    rig.turn(may_move=False)
    held = rig.gives(donor, 2, awaited=[[donor.serial, 9]])
    rig.says(donor, Reply(2, donor.serial, b"reply"))
    rig.broker.give_all_to(to_new_master, rig.now)
    rig.turn()
    later = rig.gives(donor, 3)
    rig.turn()
    assert heard(new_master) == [unread, held, Reply(2, donor.serial, b"reply"), later]
    assert rig.read(adopter) == []
    assert rig.broker.in_transit == 3
    rig.says(donor, Reply(3, donor.serial, b"behind it"))
    rig.bury(donor)
    assert heard(new_master) == [Reply(3, donor.serial, b"behind it"), DonorGone(donor.serial, False)]
    for cid in (1, 2, 3):
        rig.broker.hear_new_master(Adopted(cid), rig.now)
    assert (rig.broker.in_transit, rig.broker.figures.handed_over) == (0, 3)
    rig.says(adopter, Reply(2, 5, b"after it"))
    assert heard(new_master) == [Reply(2, 5, b"after it")]


def test_who_has_not_read_when_a_new_master_comes_is_not_silent(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It is not told to be, and is asked as any other if the new master ends."""
    to_new_master, _ = rig.pair()
    donor, adopter = rig.add(retiring(), 2), rig.add(ready())
    rig.gives(donor)
    rig.turn(may_move=False)
    rig.broker.give_all_to(to_new_master, rig.now)
    rig.broker.lose_new_master()
    rig.turn(may_move=False)
    assert (caplog.messages, given_to(rig, adopter)) == ([], [1])


def test_a_new_master_learns_who_had_died_before_it_came(rig: Rig) -> None:
    """As any owner does."""
    to_new_master, new_master = rig.pair()
    donor = rig.add(retiring(kill_reason="dying"), 1)
    give = rig.gives(donor, awaited=[[donor.serial, 9]])
    rig.bury(donor)
    rig.broker.give_all_to(to_new_master, rig.now)
    rig.turn()
    assert heard(new_master) == [give, DonorGone(donor.serial, False, CID)]


def test_what_an_adopter_had_read_is_its_own_until_it_gives_it_on(rig: Rig) -> None:
    """Replies go to it, not to the new master."""
    to_new_master, new_master = rig.pair()
    donor, adopter = rig.add(retiring(), 1), rig.add(ready())
    rig.gives(donor)
    rig.turn()
    assert len(rig.read(adopter)) == 1
    rig.broker.give_all_to(to_new_master, rig.now)
    rig.turn()
    rig.says(adopter, Adopted(CID))
    rig.says(donor, Reply(CID, donor.serial, b"reply"))
    assert rig.read(adopter) == [Reply(CID, donor.serial, b"reply")]
    assert heard(new_master) == []
    adopter.state = ChildState.RETIRING
    rig.turn()
    rig.gives(adopter)
    rig.turn()
    assert [type(message) for message in heard(new_master)] == [Give]


def test_a_new_master_has_room_for_all(rig: Rig) -> None:
    """But for no more at once than the window; without it there is nobody left to give to."""
    to_new_master, _ = rig.pair()
    leaves = rig.add(retiring(), 1000)
    rig.broker.give_all_to(to_new_master, rig.now)
    rig.turn()
    assert rig.releases() == {leaves: WINDOW}
    rig.says(leaves, Released(0))
    rig.broker.lose_new_master()
    rig.now += REST_SECONDS
    rig.turn()
    assert rig.releases() == {}


def test_a_dead_new_master_is_no_error(rig: Rig) -> None:
    """Its channel is closed before anyone has said so."""
    to_new_master, new_master = rig.pair()
    rig.broker.give_all_to(to_new_master, rig.now)
    new_master.close()
    rig.gives(rig.add(retiring(), 1))
    rig.turn()
    assert heard(to_new_master) == []
    rig.loop.unwatch(to_new_master)
    rig.turn()
    rig.bury(rig.add(ready()))


# -- what an old master gives


def old_master_gives(rig: Rig, old: tuple[Channel, Channel], message: Message) -> None:
    ours, theirs = old
    if isinstance(message, Give):
        with rig.client(message.cid) as client:
            theirs.send(message, [client.fileno()])
    else:
        theirs.send(message)
    for each, descriptors in ours.receive_unopened():
        rig.broker.hear_old_master(ours, each, descriptors, rig.now)


def test_an_old_master_keeps_its_copy_until_a_worker_has_adopted(new_master: Rig) -> None:
    """Only then it is told; replies follow as if the donor were here."""
    rig, old = new_master, new_master.pair()
    give = Give(CID, ["127.0.0.1", 1], False, b"", b"", [[3, 1]])
    old_master_gives(rig, old, give)
    old_master_gives(rig, old, Reply(CID, 3, b"early"))
    adopter = rig.add(ready())
    rig.turn()
    assert heard(old[1]) == []
    assert rig.adopts(adopter) == [give]
    assert heard(old[1]) == [Adopted(CID)]
    old_master_gives(rig, old, Reply(CID, 3, b"late"))
    assert rig.read(adopter) == [Reply(CID, 3, b"early"), Reply(CID, 3, b"late")]


@pytest.mark.parametrize("gone", [DonorGone(3, False), DonorGone(999, True)])
def test_owners_hear_of_the_old_masters_dead(new_master: Rig, gone: DonorGone) -> None:
    """One worker, or in the end all; those who adopt later hear it, too."""
    old, present = new_master.pair(), new_master.add(ready())
    old_master_gives(new_master, old, Give(CID, [], False, b"", b"", [[3, 1]]))
    old_master_gives(new_master, old, gone)
    old_master_gives(new_master, old, Reply(CID, 3, b"too late"))
    new_master.turn()
    assert len(new_master.adopts(present)) == 1
    assert new_master.read(present) == [Reply(CID, 3, b"too late"), DonorGone(3, False, CID)]
    leaves = present
    leaves.state = ChildState.RETIRING
    new_master.gives(leaves, awaited=[[3, 1]])  # before it had read that
    following = new_master.add(ready())
    new_master.turn()
    new_master.adopts(following)
    assert new_master.read(following) == []
    new_master.says(leaves, Reply(CID, 3, b"too late"))  # it comes back
    assert new_master.read(following) == [Reply(CID, 3, b"too late"), DonorGone(3, False, CID)]


def test_the_end_of_the_old_master_is_that_of_its_workers_alone(new_master: Rig) -> None:
    """The calls that run in the new master's own, its very first included, go on."""
    rig, old = new_master, new_master.pair()
    first = rig.add(retiring(2, serial=1000))
    owner = rig.add(ready())
    old_master_gives(rig, old, Give(1, [], False, b"", b"", [[999, 1]]))
    rig.gives(first, 2, awaited=[[1000, 2]])
    rig.turn()
    rig.adopts(owner)
    rig.broker.note_old_master_gone()
    assert rig.read(owner) == [DonorGone(999, True, 1)]
    rig.gives(first, 3, awaited=[[1000, 3]])
    rig.turn()
    rig.adopts(owner)
    rig.says(first, Reply(2, 1000, b"two"))
    rig.says(first, Reply(3, 1000, b"three"))
    assert rig.read(owner) == [Reply(2, 1000, b"two"), Reply(3, 1000, b"three")]


def test_the_old_masters_word_on_one_connection_is_for_that_one(new_master: Rig) -> None:
    """Replies to the others may still be on their way, those to later ones are."""
    old, owner = new_master.pair(), new_master.add(ready())
    for cid in (1, 2):
        old_master_gives(new_master, old, Give(cid, [], False, b"", b"", [[3, cid]]))
    new_master.turn()
    new_master.adopts(owner)
    old_master_gives(new_master, old, DonorGone(3, False, 1))
    assert new_master.read(owner) == [DonorGone(3, False, 1)]
    old_master_gives(new_master, old, DonorGone(3, False))
    assert {message.cid for message in new_master.read(owner) if isinstance(message, DonorGone)} == {1, 2}
    old_master_gives(new_master, old, Give(5, [], False, b"", b"", [[3, 1]]))
    new_master.turn()
    new_master.adopts(owner)
    assert new_master.read(owner) == []
    old_master_gives(new_master, old, Reply(5, 3, b"behind it"))
    old_master_gives(new_master, old, DonorGone(3, False, 5))
    assert new_master.read(owner) == [Reply(5, 3, b"behind it"), DonorGone(3, False, 5)]


def test_a_connection_that_came_without_its_descriptor_is_lost_and_told(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """This process may hold no more: whoever gave it must not wait for ever, nor its replies go to and fro."""
    owner = owned(rig)
    rig.says(owner, Give(CID, [], False, b"", b"", []))
    rig.says(owner, Reply(CID, 3, b"late"))
    assert rig.read(owner) == []
    assert rig.broker.figures.dropped_replies == 1
    assert f"Lost a connection (cid: {CID}) that moved" in caplog.text
    assert rig.broker.in_transit == 0


def test_what_a_new_master_has_no_descriptor_for_is_refused(new_master: Rig) -> None:
    """The old master still has its copy."""
    ours, old = new_master.pair()
    new_master.broker.hear_old_master(ours, Give(CID, [], False, b"", b"", []), [], new_master.now)
    assert heard(old) == [Refused(CID)]
    assert new_master.broker.in_transit == 0


def test_what_a_new_master_refuses_is_served_on(rig: Rig) -> None:
    """By the worker that retires; a while later the new master is asked again."""
    to_new_master, new_master = rig.pair()
    donor = rig.add(retiring(), 1)
    give = rig.gives(donor)
    rig.broker.give_all_to(to_new_master, rig.now)
    rig.turn()
    assert heard(new_master) == [give]
    rig.broker.hear_new_master(Refused(CID), rig.now)
    rig.turn()
    assert rig.adopts(donor) == [give]
    rig.turn()
    assert rig.releases() == {}
    rig.now += ALONE_SECONDS
    rig.turn()
    assert rig.releases() == {donor: 1}
    again = rig.gives(donor)
    rig.turn()
    assert heard(new_master) == [again]
    rig.broker.hear_new_master(Adopted(CID), rig.now)
    assert rig.broker.in_transit == 0
