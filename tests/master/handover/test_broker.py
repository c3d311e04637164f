"""Connections in transit: every rule of the broker, on made-up workers that speak over real channels."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from descriptors import descriptors_left, open_descriptors
from hypothesis import given, settings
from hypothesis import strategies as st

from rpccluster.ipc.channel import LARGEST_PACKET, Channel, channel_pair
from rpccluster.ipc.messages import (
    Accept,
    Adopted,
    Closed,
    DonorGone,
    Give,
    Message,
    Refused,
    Release,
    Released,
    Reply,
)
from rpccluster.ipc.scoreboard import Cell
from rpccluster.master.children.child import ChildState
from rpccluster.master.handover.broker import Broker
from rpccluster.master.handover.placement import (
    ALONE_SECONDS,
    GRANT_BYTES,
    LOOK_SECONDS,
    PATIENCE_SECONDS,
    SILENT_SECONDS,
    WINDOW,
    WINDOW_BYTES,
)
from rpccluster.master.handover.transit import REST_SECONDS
from rpccluster.master.kinds.rpc import RPCWorker
from rpccluster.master.loop import Loop

from ..made_up import booting, ready, retiring

CID = 7


class Rig:
    """A broker, its workers, and the time."""

    def __init__(self, first_serial: int = 1) -> None:
        self.now = 100.0
        self.loop = Loop()
        self.workers: list[RPCWorker] = []
        self.broker = Broker(self.loop, lambda: self.workers, first_serial)
        self.asked: dict[RPCWorker, Channel] = {}  # their ends of the channels on which they are asked
        self.channels: list[Channel] = []
        self.clients: dict[int, socket.socket] = {}

    # -- the master's side

    def add(self, worker: RPCWorker, connections: int = 0, limit: int = 1000) -> RPCWorker:
        """``worker`` with that many connections, of ``limit`` that it may have."""
        worker.connections, worker.far_end = self.pair()
        worker.channel, self.asked[worker] = self.pair()
        worker.row[Cell.CONNECTIONS], worker.row[Cell.CONNECTION_LIMIT] = connections, limit
        self.workers.append(worker)
        return worker

    def pair(self) -> tuple[Channel, Channel]:
        """Two ends, the first of which the master watches."""
        ours, theirs = channel_pair()
        self.channels += [ours, theirs]
        self.loop.watch(ours, lambda: None)
        return ours, theirs

    def turn(self, *, may_move: bool = True) -> None:
        self.broker.turn(self.now, may_move=may_move)

    def hear(self) -> None:
        """All that workers have said."""
        for worker in self.workers:
            for message, descriptors in worker.connections.receive_unopened():
                self.broker.hear(worker, message, descriptors, self.now)

    def releases(self) -> dict[RPCWorker, int]:
        """How many each was asked for since the last look."""
        return {worker: release.number for worker, release in self.granted()}

    def granted(self) -> list[tuple[RPCWorker, Release]]:
        """Likewise, with all that it was told of it."""
        said = [(worker, message) for worker, asked in self.asked.items() for message, _ in asked.receive()]
        return [(worker, message) for worker, message in said if isinstance(message, Release)]

    def bury(self, worker: RPCWorker) -> None:
        """``worker`` has ended; all that it said is heard first."""
        self.hear()
        self.workers.remove(worker)
        self.broker.note_gone(worker)

    # -- the workers' side

    def gives(self, donor: RPCWorker, cid: int = CID, awaited: Any = (), data: bytes = b"") -> Give:
        """``donor`` gives a connection away; what its client is called lets it be told from others."""
        give = Give(cid, [], False, b"in", data or b"out", [list(call) for call in awaited])
        with self.client(cid) as theirs:
            donor.far_end.send(give, [theirs.fileno()])
        donor.row[Cell.CONNECTIONS] = max(0, donor.connection_count - 1)
        self.hear()
        return give

    def client(self, cid: int) -> socket.socket:
        """The socket of a new client."""
        if cid in self.clients:
            self.clients[cid].close()
        self.clients[cid], theirs = socket.socketpair()
        return theirs

    def read(self, worker: RPCWorker) -> list[Message]:
        """What has come to ``worker``; each connection is looked at whether it is the right one."""
        found = []
        for message, descriptors in worker.far_end.receive():
            found.append(message)
            for descriptor in descriptors:
                assert isinstance(message, Give)
                os.write(descriptor, b"it is me")
                os.close(descriptor)
                assert self.clients[message.cid].recv(100) == b"it is me"
        return found

    def adopts(self, worker: RPCWorker) -> list[Message]:
        """``worker`` reads, adopts what it was given, and is heard."""
        found = self.read(worker)
        for message in found:
            if isinstance(message, Give):
                worker.row[Cell.ADOPTED] += 1
                worker.row[Cell.CONNECTIONS] += 1
                worker.far_end.send(Adopted(message.cid))
        self.hear()
        return found

    def says(self, worker: RPCWorker, message: Message) -> None:
        worker.far_end.send(message)
        self.hear()

    def fill(self, worker: RPCWorker) -> int:
        """Leave no room in the channel to ``worker``; return how many messages that took."""
        count = 0
        while not worker.connections.wants_to_write:
            worker.connections.send(Accept())
            count += 1
        return count

    def close(self) -> None:
        self.broker.close()
        for channel in self.channels:
            channel.close()
        for client in self.clients.values():
            client.close()
        self.loop.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    """With no descriptor left behind."""
    before = len(os.listdir("/proc/self/fd"))
    made = Rig()
    yield made
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before


def given_to(rig: Rig, *workers: RPCWorker) -> list[int]:
    """How many connections each has been sent."""
    return [sum(isinstance(message, Give) for message in rig.read(worker)) for worker in workers]


def owned(rig: Rig, cid: int = CID, awaited: Any = ()) -> RPCWorker:
    """A worker that has adopted a connection."""
    donor = rig.add(retiring())
    owner = rig.add(ready())
    rig.gives(donor, cid, awaited)
    rig.turn()
    rig.adopts(owner)
    rig.bury(donor)
    rig.read(owner)
    return owner


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
    rig.broker.note_gone(donor)
    rig.hear()
    owner.state = ChildState.RETIRING
    following = rig.add(ready())
    rig.turn()
    rig.adopts(following)
    assert rig.read(following) == [DonorGone(donor.serial, False, CID)]


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


# -- the new master of an upgrade


def heard(channel: Channel) -> list[Message]:
    """What has come, its descriptors closed."""
    found = channel.receive()
    for _, descriptors in found:
        for descriptor in descriptors:
            os.close(descriptor)
    return [message for message, _ in found]


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


@pytest.fixture
def new_master() -> Iterator[Rig]:
    """The new master's side."""
    made = Rig(first_serial=1000)
    yield made
    made.close()


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
    assert new_master.read(following) == [DonorGone(3, False, CID)]


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
