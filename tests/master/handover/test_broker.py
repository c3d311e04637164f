"""Connections in transit: what the broker does with them, on made-up workers that speak over real channels."""

from __future__ import annotations

import math

import pytest
from descriptors import descriptors_left, open_descriptors

from rpccluster.ipc.channel import LARGEST_PACKET
from rpccluster.ipc.messages import (
    Accept,
    Adopted,
    DonorGone,
    Give,
    Refused,
    Release,
    Released,
    Reply,
)
from rpccluster.ipc.scoreboard import Cell
from rpccluster.master.handover.placement import (
    ALONE_SECONDS,
    GRANT_BYTES,
    LOOK_SECONDS,
    PATIENCE_SECONDS,
    SILENT_SECONDS,
    WINDOW,
    WINDOW_BYTES,
)
from rpccluster.master.kinds.rpc import RPCWorker

from ..made_up import booting, ready, retiring
from .rig import CID, Rig, given_to

# -- placing


def test_a_connection_moves(rig: Rig) -> None:
    """From giving to adopting: the very message, the very socket, one copy in the master as long as need be."""
    donor, adopter = rig.add(retiring(), 1), rig.add(ready())
    give = rig.gives(donor, awaited=[[donor.serial, 5]])
    assert rig.broker.in_transit == 1
    rig.turn()
    assert rig.broker.in_transit == 1
    rig.now += 0.25
    assert rig.adopts(adopter) == [give]
    assert rig.broker.in_transit == 0
    figures = rig.broker.figures
    assert (figures.handed_over, figures.longest_seconds, figures.dropped_replies) == (1, 0.25, 0)


def test_whoever_has_the_fewest_gets_it(rig: Rig) -> None:
    """Those on their way there counted."""
    donor, *adopters = rig.add(retiring(), 6), rig.add(ready(), 5), rig.add(ready(), 2), rig.add(ready(), 4)
    for cid in range(1, 7):
        rig.gives(donor, cid)
    rig.turn()
    assert given_to(rig, *adopters) == [1, 4, 1]


@pytest.mark.parametrize(
    "worker",
    [
        booting(),
        ready(kill_reason="why"),
        ready(questioned_at=99.0),
        ready(silent_seconds=SILENT_SECONDS),
        retiring(kill_reason="late"),
        retiring(silent_seconds=SILENT_SECONDS),
    ],
    ids=["booting", "killed", "asked where it hangs", "silent", "retiring and killed", "retiring and silent"],
)
def test_who_may_not_live_long_is_not_asked(rig: Rig, worker: RPCWorker) -> None:
    """The connection is held until there is one who serves."""
    donor = rig.add(retiring(kill_reason="dying"), 1)
    rig.add(worker)
    rig.gives(donor)
    rig.turn()
    assert given_to(rig, worker) == [0]
    assert rig.broker.in_transit == 1
    late = rig.add(ready(), 500)
    rig.turn()
    assert given_to(rig, worker, late) == [0, 1]


def test_a_full_worker_is_not_asked(rig: Rig) -> None:
    """The connections wait, and come when there is room; those on their way take room, too."""
    donor, full = rig.add(retiring(kill_reason="dying"), 2), rig.add(ready(), 9, limit=10)
    rig.gives(donor, 1)
    rig.gives(donor, 2)
    rig.turn()
    rig.turn()
    assert [message.cid for message in rig.adopts(full) if isinstance(message, Give)] == [1]
    rig.turn()
    assert given_to(rig, full) == [0]
    full.row[Cell.CONNECTIONS] -= 1
    rig.turn()
    assert given_to(rig, full) == [1]


def test_when_nobody_else_has_room_it_goes_back_to_one_that_retires(rig: Rig) -> None:
    """It serves on; but not when another can take it."""
    donor, full = rig.add(retiring(), 2), rig.add(ready(), 10, limit=10)
    rig.gives(donor)
    rig.turn()
    assert given_to(rig, donor, full) == [1, 0]
    full.row[Cell.CONNECTIONS] = 9
    rig.gives(donor, CID + 1)
    rig.turn()
    assert given_to(rig, donor, full) == [0, 1]


# -- those that do not take it


def test_who_refuses_is_left_in_peace_for_a_while(rig: Rig) -> None:
    """Another gets it; if there is none it is held until the one may be asked again."""
    donor, poor = rig.add(retiring(kill_reason="dying"), 1), rig.add(ready())
    rig.gives(donor)
    rig.turn()
    assert given_to(rig, poor) == [1]
    rig.says(poor, Refused(CID))
    rig.turn()
    assert given_to(rig, poor) == [0]
    rig.now += ALONE_SECONDS
    rig.turn()
    assert given_to(rig, poor) == [1]
    rig.says(poor, Refused(CID))
    other = rig.add(ready(), 500)
    rig.turn()
    assert given_to(rig, poor, other) == [0, 1]


def test_a_refusal_that_comes_too_late_changes_nothing(rig: Rig) -> None:
    """It was taken back already, and somebody else has it."""
    donor, slow, other = rig.add(retiring(), 1), rig.add(ready()), rig.add(ready(), 5)
    rig.gives(donor)
    rig.turn()
    rig.now += PATIENCE_SECONDS + 0.01
    rig.turn()
    rig.turn()
    rig.says(slow, Refused(CID))
    rig.turn()
    assert rig.adopts(other) != []
    assert rig.broker.in_transit == 0


@pytest.mark.parametrize("has_read", [False, True])
def test_an_adopter_that_dies_before_it_said_so_has_done_nothing(rig: Rig, has_read: bool) -> None:
    """Whether it had read the connection or not, another gets it."""
    donor, dies, other = rig.add(retiring(), 1), rig.add(ready()), rig.add(ready(), 5)
    give = rig.gives(donor)
    rig.turn()
    if has_read:
        assert rig.read(dies) == [give]
    rig.bury(dies)
    rig.turn()
    assert rig.adopts(other)[-1] == give
    assert rig.broker.in_transit == 0


def test_an_adopter_that_dies_after_it_said_so_takes_it_along(rig: Rig) -> None:
    """It may have run calls: the connection is closed, replies for it are dropped and counted."""
    donor, dies = rig.add(retiring(), 1), rig.add(ready())
    rig.add(ready(), 5)
    rig.gives(donor)
    rig.turn()
    for message in rig.read(dies):
        assert isinstance(message, Give)
        dies.far_end.send(Adopted(message.cid))
    rig.bury(dies)
    assert rig.broker.in_transit == 0
    assert rig.clients[CID].recv(1) == b""
    rig.says(donor, Reply(CID, donor.serial, b"late"))
    assert rig.broker.figures.dropped_replies == 1


@pytest.mark.parametrize("is_queued", [False, True], ids=["in the kernel", "in the queue"])
def test_what_a_worker_leaves_unread_is_taken_back(rig: Rig, is_queued: bool) -> None:
    """After a second, not before, wherever it lies; it goes to another, and never to the same at once."""
    donor, stopped = rig.add(retiring(kill_reason="dying"), 1), rig.add(ready())
    filled = rig.fill(stopped) if is_queued else 0
    give = rig.gives(donor)
    rig.turn()
    other = rig.add(ready(), 500)
    rig.now += PATIENCE_SECONDS - 0.01
    rig.turn()
    rig.turn()
    assert given_to(rig, other) == [0]
    rig.now += 0.02
    rig.turn()
    rig.turn()
    assert rig.adopts(other) == [give]
    left = rig.read(stopped)
    stopped.connections.flush()
    left += rig.read(stopped)
    assert left == [Accept()] * filled  # what else it was told is still to be read, in its order


def test_nobody_else_may_adopt_what_was_read(rig: Rig) -> None:
    """Its reader is busy before it says so: it keeps the connection, however long that takes."""
    donor, busy, other = rig.add(retiring(), 1), rig.add(ready()), rig.add(ready(), 5)
    rig.gives(donor)
    rig.turn()
    assert len(rig.read(busy)) == 1
    for _ in range(5):
        rig.now += PATIENCE_SECONDS * 2
        rig.turn()
    assert given_to(rig, other) == [0]
    rig.says(busy, Adopted(CID))
    assert rig.broker.in_transit == 0
    rig.says(donor, Reply(CID, donor.serial, b"late"))
    assert rig.read(busy) == [Reply(CID, donor.serial, b"late")]


# -- when it wants to be woken


def test_it_sleeps_until_the_next_thing_is_due(rig: Rig) -> None:
    """Nothing, a look for room, an adopter's silence, nothing again; and whatever is heard wants a turn at once."""
    rig.turn()
    assert rig.broker.wake_at == math.inf
    donor = rig.add(retiring(kill_reason="dying"), 1)
    rig.gives(donor)
    assert rig.broker.wake_at <= rig.now
    rig.turn()
    assert rig.broker.wake_at == rig.now + LOOK_SECONDS
    adopter = rig.add(ready())
    rig.turn()
    assert rig.broker.wake_at == rig.now + PATIENCE_SECONDS
    rig.adopts(adopter)
    assert rig.broker.wake_at <= rig.now
    rig.turn()
    assert rig.broker.wake_at == math.inf


def test_what_was_taken_back_is_placed_at_once(rig: Rig) -> None:
    """The turn that takes it back wants another one right away."""
    donor, stopped, other = rig.add(retiring(kill_reason="dying"), 1), rig.add(ready()), rig.add(ready(), 5)
    give = rig.gives(donor)
    rig.turn()
    rig.now = rig.broker.wake_at
    rig.turn()
    assert rig.broker.wake_at <= rig.now
    rig.turn()
    assert rig.adopts(other) == [give]
    assert rig.read(stopped) == []


@pytest.mark.parametrize("happens", ["a death", "a command", "an upgrade", "its failure", "its news", "the old master"])
def test_what_comes_from_outside_wants_a_turn_at_once(rig: Rig, happens: str) -> None:
    """It may change what is decided."""
    ours, _ = rig.pair()
    worker = rig.add(ready())
    rig.turn()
    assert rig.broker.wake_at == math.inf
    {
        "a death": lambda: rig.bury(worker),
        "a command": rig.broker.even_out,
        "an upgrade": lambda: rig.broker.give_all_to(ours, rig.now),
        "its failure": rig.broker.lose_new_master,
        "its news": lambda: rig.broker.hear_new_master(Adopted(1), rig.now),
        "the old master": lambda: rig.broker.hear_old_master(ours, DonorGone(1, False), [], rig.now),
    }[happens]()
    assert rig.broker.wake_at <= rig.now


def test_what_cannot_be_sent_now_is_tried_again_soon(rig: Rig) -> None:
    """No event tells when a descriptor is free."""
    donor, adopter = rig.add(retiring(kill_reason="dying"), 1), rig.add(ready())
    rig.fill(adopter)
    rig.gives(donor)
    with descriptors_left(0):
        rig.turn()
    assert rig.broker.wake_at == rig.now + LOOK_SECONDS


def test_one_that_fails_holds_up_no_other(rig: Rig) -> None:
    """Of several that are to be done each is attempted."""
    donor, full, free = rig.add(retiring(kill_reason="dying"), 2), rig.add(ready()), rig.add(ready())
    rig.fill(full)
    for cid in (1, 2):
        rig.gives(donor, cid)
    with descriptors_left(0):
        rig.turn()
    assert given_to(rig, free) == [1]
    assert rig.broker.in_transit == 2


# -- the end


def test_closing_leaves_no_copy(rig: Rig) -> None:
    """In a forked child, and at the end: the client of a held connection sees its end."""
    rig.gives(rig.add(retiring(kill_reason="dying"), 1))
    rig.broker.close()
    assert rig.clients[CID].recv(1) == b""
    assert rig.broker.in_transit == 0
    rig.broker.close()


# -- long messages, and how many bytes are under way


def test_a_long_one_passes_without_being_opened(rig: Rig) -> None:
    """What a client has sent by half never comes into the master's memory; late replies pass likewise."""
    donor, adopter = rig.add(retiring()), rig.add(ready())
    give = rig.gives(donor, data=bytes(2 * LARGEST_PACKET))
    rig.says(donor, Reply(CID, donor.serial, b"early" * LARGEST_PACKET))
    (transit,) = rig.broker._transits.values()
    assert transit.give == give._replace(input=b"", output=b"")
    assert transit.size > 2 * LARGEST_PACKET
    rig.turn()
    assert rig.adopts(adopter) == [give]
    rig.says(donor, Reply(CID, donor.serial, b"late" * LARGEST_PACKET))
    assert rig.read(adopter) == [Reply(CID, donor.serial, word * LARGEST_PACKET) for word in (b"early", b"late")]


def test_a_long_one_is_taken_back_whole(rig: Rig) -> None:
    """From one that does not answer; what follows it, too."""
    donor, stopped = rig.add(retiring()), rig.add(ready())
    give = rig.gives(donor, data=bytes(2 * LARGEST_PACKET))
    rig.turn()
    rig.now += PATIENCE_SECONDS + 0.1
    adopter = rig.add(ready())
    rig.turn()
    rig.turn()
    assert rig.read(stopped) == []
    assert rig.adopts(adopter) == [give]


def test_a_reply_for_nobody_leaves_nothing_open(rig: Rig) -> None:
    """The connection has ended; its file is closed."""
    donor = rig.add(retiring())
    before = open_descriptors()
    rig.says(donor, Reply(CID, donor.serial, bytes(2 * LARGEST_PACKET)))
    assert open_descriptors() == before
    assert rig.broker.figures.dropped_replies == 1


def test_only_so_many_bytes_are_under_way(rig: Rig) -> None:
    """A donor is granted some; while as many as there may be are in transit or granted, nobody is granted more."""
    donor, adopter = rig.add(retiring(), 100), rig.add(ready())
    rig.turn()
    assert rig.granted() == [(donor, Release(WINDOW, GRANT_BYTES))]
    rig.gives(donor, 1, data=bytes(WINDOW_BYTES - 1_000_000))
    rig.gives(donor, 2, data=bytes(2_000_000))
    rig.says(donor, Released(2))
    rig.turn()
    rig.turn()
    assert rig.releases() == {}
    assert len(rig.adopts(adopter)) == 2
    rig.turn()
    assert rig.releases() == {donor: WINDOW}


def test_a_connection_that_cannot_be_passed_on_waits(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """A copy is needed, since the channel is full, and there is none: it goes later, and the master goes on."""
    donor, adopter = rig.add(retiring()), rig.add(ready())
    give = rig.gives(donor)
    while not adopter.connections.wants_to_write:
        adopter.connections.send(Accept())
    with descriptors_left(0):
        rig.turn()
    assert "Cannot move a connection: OSError: [Errno 24]" in caplog.text
    assert adopter.given == 0
    rig.turn()
    assert Accept() in rig.read(adopter)
    adopter.connections.flush()
    assert give in rig.adopts(adopter)
