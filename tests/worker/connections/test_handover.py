"""Giving, adopting, and the replies that follow: two workers' insides, and the test in the master's place."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import msgpack
import pytest
from descriptors import descriptors_left

from rpccluster.ipc.channel import LARGEST_PACKET, Channel, channel_pair
from rpccluster.ipc.messages import Accept, Adopted, Closed, DonorGone, Give, Message, Refused, Release, Released, Reply
from rpccluster.ipc.packets import Packet
from rpccluster.ipc.scoreboard import Cell, Row
from rpccluster.protocol.codec import msgid_of, pack_response
from rpccluster.worker.connections.adopting import Adopting
from rpccluster.worker.connections.giving import Giving
from rpccluster.worker.connections.handover_channel import HandoverChannel
from rpccluster.worker.hot import HIGH_WATER_BYTES

from ..rig import Peer, Rig, settle, until, wait_read

LOST = "WorkerLost: the worker that ran this call has died"


class Worker(Rig):
    """A worker's inside with its handover; ``master`` is the master's end of its connection channel."""

    def __init__(self, serial: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.master, self.channel = channel_pair()
        self.row = Row(self.cells)
        self.serial = serial
        self.strangers: list[Peer] = []
        loop = gevent.get_hub().loop
        self.handover_channel = HandoverChannel(loop, self.channel)
        self.giving = Giving(loop, self.handover_channel, self.context, self.engine, self.row, serial)
        self.adopting = Adopting(self.handover_channel, self.context, self.engine, self.connections.adopt, self.row)

    def release(self, number: int = 1000) -> list[tuple[Message, list[int]]]:
        """What the worker says to the master when it is told to give away so many."""
        self.giving.release(Release(number))
        return self.said()

    def said(self) -> list[tuple[Message, list[int]]]:
        """All that the worker has said."""
        self.master.flush()
        return self.master.receive()

    def told(self) -> list[Message]:
        """Likewise, when no descriptors come with it."""
        said = self.said()
        assert not any(descriptors for _, descriptors in said)
        return [message for message, _ in said]

    def tell(self, message: Message, descriptors: list[int] | None = None) -> None:
        """The master says something on the connection channel; the worker has read it when this returns."""
        self.master.send(message, descriptors or [])
        until(lambda: not _unread(self.master), "the worker reads")

    def take(self, peer: Peer, message: Message, descriptors: list[int]) -> None:
        """Give it a connection; it is that of ``peer`` from now on."""
        before = set(self.connections.open)
        self.tell(message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        (peer.connection,) = self.connections.open - before

    def fill(self) -> None:
        """Leave no room for what the worker says."""
        while not self.channel.wants_to_write:
            self.channel.send(Accept())

    def close(self) -> None:
        for connection in list(self.connections.open):
            connection.close()
        for peer in self.strangers:
            peer.close()
        super().close()
        self.adopting.stop()
        self.giving.stop()
        settle()
        self.handover_channel.close()
        self.master.close()
        self.channel.close()


def _unread(sender: Channel) -> int:
    return struct.unpack("i", fcntl.ioctl(sender.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]


@pytest.fixture
def make_worker() -> Iterator[Callable[..., Worker]]:
    """Makes workers; afterwards no descriptor is left."""
    settle()
    before = len(os.listdir("/proc/self/fd"))
    made: list[Worker] = []

    def make(serial: int = 1, **options: Any) -> Worker:
        made.append(Worker(serial, **options))
        return made[-1]

    yield make
    for worker in made:
        worker.service.open(*worker.service.gates)
        settle()
        worker.close()
    assert len(os.listdir("/proc/self/fd")) == before


def gives(said: list[tuple[Message, list[int]]]) -> list[tuple[Give, int]]:
    """The connections among it."""
    return [(message, descriptors[0]) for message, descriptors in said if isinstance(message, Give)]


def socket_of(descriptor: int) -> int:
    """What tells a socket from others, whatever its descriptor's number."""
    return os.fstat(descriptor).st_ino


def adopt_all(said: list[tuple[Message, list[int]]], peers: dict[int, Peer], adopter: Worker) -> None:
    """All connections among it go to ``adopter``; ``peers`` are by their sockets."""
    for message, descriptors in said:
        if isinstance(message, Give):
            adopter.take(peers[socket_of(descriptors[0])], message, descriptors)


def move(peer: Peer, donor: Worker, adopter: Worker) -> Give:
    """The only connection of ``donor`` goes to ``adopter``."""
    (message, descriptors), *rest = donor.release()
    assert isinstance(message, Give)
    assert rest == [(Released(1), [])]
    adopter.take(peer, message, descriptors)
    assert adopter.told() == [Adopted(message.cid)]
    return message


# -- giving


def test_a_connection_moves_with_its_socket(make_worker: Callable[..., Worker]) -> None:
    """Both count it; the client notices nothing."""
    donor, adopter = make_worker(1), make_worker(2)
    peer = donor.connect()
    assert peer.call("echo", 1) == 1
    give = move(peer, donor, adopter)
    assert give == Give(1 << 32 | 1, ["127.0.0.1", 4711], False, b"", b"", [], given_at=give.given_at)
    assert peer.call("echo", 2) == 2
    assert (donor.service.began, adopter.service.began) == ([1], [2])
    assert (donor.row[Cell.HANDED_OVER], adopter.row[Cell.ADOPTED]) == (1, 1)
    assert (len(donor.connections.open), len(adopter.connections.open)) == (0, 1)
    assert peer.connection.outbox.peer == "127.0.0.1:4711"


def test_a_connection_without_an_address_moves(make_worker: Callable[..., Worker]) -> None:
    """That of a Unix socket."""
    donor, adopter = make_worker(1), make_worker(2)
    peer = donor.connect()
    peer.connection.outbox.peer = "a Unix socket"
    assert move(peer, donor, adopter).peer == []
    assert peer.connection.outbox.peer == "a Unix socket"
    assert peer.call("echo", 1) == 1


def test_idle_ones_are_given_first(make_worker: Callable[..., Worker]) -> None:
    """As many as were asked for, then it says how many; asked again, those that are busy."""
    worker = make_worker()
    peers = [worker.connect() for _ in range(6)]
    for peer in peers[::2]:
        peer.post("wait", "gate")
    until(lambda: len(worker.service.began) == 3, "they run")
    first, second, third = (worker.release(2) for _ in range(3))
    assert [message for message, _ in first][-1] == Released(2)
    assert all(give.awaited == [] for give, _ in gives(first))
    assert [len(give.awaited) for give, _ in gives(second)] == [0, 1]
    assert [len(give.awaited) for give, _ in gives(third)] == [1, 1]
    assert [message for message, _ in worker.release(2)] == [Released(0)]
    given = gives(first + second + third)
    assert len({give.cid for give, _ in given}) == 6
    assert {give.cid >> 32 for give, _ in given} == {worker.serial}
    for _, descriptor in given:
        os.close(descriptor)


def test_calls_that_wait_go_along_those_that_run_are_awaited(make_worker: Callable[..., Worker]) -> None:
    """Each by the serial of its worker and its msgid; nobody waits for a notification."""
    donor, adopter = make_worker(5, max_greenlets=3), make_worker(6)
    peer = donor.connect()
    peer.notify("wait", "gate")
    peer.post("wait", "gate")
    peer.post("wait", "gate")
    peer.post("echo", "waits")
    until(lambda: len(donor.service.began) == 3 and not _unread_of(peer), "they run")
    give = move(peer, donor, adopter)
    assert sorted(give.awaited) == [[5, 1], [5, 2]]
    assert msgpack.unpackb(give.input) == [0, 3, "echo", ["waits"]]
    assert peer.wait(1) == [[3, None, "waits"]]
    donor.service.open("gate")
    replies = until(lambda: [each for each in donor.told() if isinstance(each, Reply)], "they end")
    while len(replies) < 2:
        replies += donor.told()
    assert [(reply.cid, reply.serial) for reply in replies] == [(give.cid, 5)] * 2
    assert sorted(msgid_of(reply.data) for reply in replies) == [1, 2]
    for reply in replies:
        adopter.tell(reply)
    assert sorted(peer.wait(3)) == [[1, None, "gate"], [2, None, "gate"], [3, None, "waits"]]
    assert peer.connection.is_at_rest
    assert donor.engine.is_quiet


def _unread_of(peer: Peer) -> int:
    return struct.unpack("i", fcntl.ioctl(peer.sock, termios.TIOCOUTQ, b"\0" * 4))[0]


def test_a_connection_that_moves_on_keeps_its_number_and_what_it_awaits(make_worker: Callable[..., Worker]) -> None:
    """Calls of every worker that it has been at; a reply that came in between is awaited no more."""
    workers = [make_worker(serial) for serial in (1, 2, 3)]
    peer = workers[0].connect()
    peer.post("wait", "first")
    peer.post("wait", "first, too")
    until(lambda: len(workers[0].service.began) == 2, "they run")
    first = move(peer, workers[0], workers[1])
    peer.post("wait", "second")
    until(lambda: workers[1].service.began, "it runs")
    workers[0].service.open("first, too")
    (reply,) = until(workers[0].told, "it ends")
    workers[1].tell(reply)
    second = move(peer, workers[1], workers[2])
    assert second.cid == first.cid
    assert sorted(second.awaited) == [[1, 1], [2, 3]]
    for worker, name in zip(workers, ("first", "second")):
        worker.service.open(name)
        (reply,) = until(worker.told, "it ends")
        workers[2].tell(reply)
    assert sorted(peer.wait(3)) == [[1, None, "first"], [2, None, "first, too"], [3, None, "second"]]


def test_a_reply_that_has_come_goes_out_before_its_connection_moves(make_worker: Callable[..., Worker]) -> None:
    """Also if the order to give comes first: passed on later, it could be overtaken by the news of its worker's end."""
    worker = make_worker()
    peer, give, descriptor = adoptable(worker, awaited=[[1, 5]])
    worker.take(peer, give, [descriptor])
    worker.master.send(Reply(7, 1, pack_response(5, None, "in time")))
    ((moved, copy),) = gives(worker.release())
    os.close(copy)
    assert moved.awaited == []
    assert msgpack.unpackb(peer.sock.recv(100)) == [1, 5, None, "in time"]


def test_it_may_come_back_to_where_its_call_runs(make_worker: Callable[..., Worker]) -> None:
    """The reply goes by the master all the same, and comes once."""
    one, other = make_worker(1), make_worker(2)
    peer = one.connect()
    peer.post("wait", "gate")
    until(lambda: one.service.began, "it runs")
    move(peer, one, other)
    give = move(peer, other, one)
    assert give.awaited == [[1, 1]]
    one.service.open("gate")
    (reply,) = until(one.told, "it ends")
    one.tell(reply)
    assert peer.wait(1) == [[1, None, "gate"]]
    assert peer.connection.is_at_rest


def test_more_than_a_packet_holds_moves(make_worker: Callable[..., Worker]) -> None:
    """Unread replies and half a message; a reply as long, too."""
    donor, adopter = make_worker(1, write_timeout=60), make_worker(2)
    peer = donor.connect(buffer_bytes=4096)
    size = LARGEST_PACKET * 2
    call = msgpack.packb([0, 9, "echo", [b"y" * size]])
    peer.post("large", size)
    until(lambda: donor.context.unsent, "it does not fit")
    peer.send(call[: size // 2])
    until(lambda: not _unread_of(peer), "it is read")
    give = move(peer, donor, adopter)
    assert len(give.input) == size // 2
    assert len(give.output) > LARGEST_PACKET
    peer.send(call[size // 2 :])
    assert peer.wait(2) == [[1, None, b"x" * size], [9, None, b"y" * size]]


def test_a_peer_that_is_gone_is_not_given(make_worker: Callable[..., Worker]) -> None:
    """Sending it what has gathered shows it; nothing but the number is said, and an adopted one is told as closed."""
    donor, adopter = make_worker(1), make_worker(2)
    peer = donor.connect()
    give = move(peer, donor, adopter)
    peer.connection.outbox.expect([1])
    peer.connection.outbox.put(pack_response(1, None, None))
    peer.close()
    assert [message for message, _ in adopter.release()] == [Closed(give.cid), Released(0)]
    assert adopter.engine.dropped_replies == 1


def test_the_loop_forgets_the_socket(make_worker: Callable[..., Worker]) -> None:
    """Another copy of it lives on, in the master: left in the epoll set, it would wake the loop for ever."""
    donor = make_worker()
    peer = donor.connect()
    peer.call("echo", 1)
    descriptor = peer.connection._socket.fileno()
    watched = Path(f"/proc/self/fdinfo/{donor.engine.fileno()}")
    assert _is_in(watched, descriptor)
    ((_, copy),) = gives(donor.release())
    settle()
    assert not _is_in(watched, descriptor)
    os.close(copy)


def _is_in(epoll: Path, descriptor: int) -> bool:
    return any(line.split()[:2] == ["tfd:", str(descriptor)] for line in epoll.read_text().splitlines())


def test_it_gives_without_a_descriptor_left(make_worker: Callable[..., Worker]) -> None:
    """Two are kept for it: for the loop's set, and for the file of a long message."""
    worker, adopter = make_worker(), make_worker(2)
    long, idle = worker.connect(), worker.connect()
    half = msgpack.packb([0, 1, "echo", ["x" * 2 * LARGEST_PACKET]])
    long.send(half[:-10])
    wait_read(long)
    sockets = {socket_of(peer.connection.fileno()): peer for peer in (long, idle)}
    with descriptors_left(0):
        worker.giving.release(Release(2))
    said = worker.said()
    assert said[-1] == (Released(2), [])
    adopt_all(said, sockets, adopter)
    long.send(half[-10:])
    assert long.wait(1) == [[1, None, "x" * 2 * LARGEST_PACKET]]
    assert idle.call("echo", 1) == 1


def test_what_cannot_go_is_served_on(make_worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture) -> None:
    """No file can be had for the input of one: it stays, whole; all others go with their calls."""
    worker, adopter = make_worker(max_greenlets=1), make_worker(2)
    if worker.engine.name != "python":
        pytest.skip("a call that waits for a greenlet keeps what is behind it from being read")
    holder, long, *others = (worker.connect() for _ in range(7))
    holder.post("wait", "gate")
    until(lambda: worker.service.began, "it runs")
    half = msgpack.packb([0, 2, "echo", ["x" * 2 * LARGEST_PACKET]])
    long.send(msgpack.packb([0, 1, "echo", ["waits"]]))
    wait_read(long)
    long.send(half[:-10])
    for peer in others:
        peer.send(msgpack.packb([0, 1, "echo", ["goes"]]))
    for peer in (long, *others):
        wait_read(peer)
    sockets = {socket_of(peer.connection.fileno()): peer for peer in (holder, *others)}
    pack = worker.channel.pack

    def pack_short_ones(message: Any, descriptors: Any = ()) -> Packet:
        if isinstance(message, Give) and len(message.input) > LARGEST_PACKET:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return pack(message, descriptors)

    worker.channel.pack = pack_short_ones  # type: ignore[method-assign]
    said = worker.release()
    assert said[-1] == (Released(6), [])
    assert "Cannot give connections away: [Errno 24] Too many open files" in caplog.text
    assert worker.limit_counts()["descriptors"] == 1
    assert worker.connections.open == {long.connection}
    adopt_all(said, sockets, adopter)
    for peer in others:
        assert peer.wait(1) == [[1, None, "goes"]]
    long.send(half[-10:])
    worker.service.open("gate")
    assert long.wait(2) == [[1, None, "waits"], [2, None, "x" * 2 * LARGEST_PACKET]]


def test_without_any_descriptor_nothing_is_touched(
    make_worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture
) -> None:
    """It says that it gave nothing; calls that wait keep their turn, and later it can."""
    worker = make_worker(max_greenlets=1)
    peer = worker.connect()
    peer.send(msgpack.packb([0, 1, "wait", ["gate"]]) + msgpack.packb([0, 2, "echo", ["waits"]]))
    until(lambda: worker.service.began, "it runs")
    worker.giving._reserve.close()
    with descriptors_left(0):
        said = worker.release()
    assert said == [(Released(0), [])]
    assert "Cannot give connections away" in caplog.text
    worker.service.open("gate")
    assert peer.wait(2) == [[1, None, "gate"], [2, None, "waits"]]
    ((_, copy),) = gives(worker.release())
    os.close(copy)


def test_a_long_reply_waits_for_a_descriptor(make_worker: Callable[..., Worker]) -> None:
    """Its file cannot be had now: it goes when it can, and until then the worker does not end."""
    donor, adopter = make_worker(), make_worker(2)
    peer = donor.connect()
    late = "x" * 2 * LARGEST_PACKET
    msgid = peer.post("wait", late)
    until(lambda: donor.service.began, "it runs")
    move(peer, donor, adopter)
    with descriptors_left(0):
        donor.service.open(late)
        until(lambda: not donor.handover_channel.is_quiet, "it is kept back")
    until(lambda: donor.handover_channel.is_quiet, "it is sent")
    (reply,) = donor.told()
    adopter.tell(reply)
    assert peer.wait(1) == [[msgid, None, late]]


def test_only_so_many_bytes_go_at_once(make_worker: Callable[..., Worker]) -> None:
    """The one that passes the bound goes, none after it; the rest keep what they have."""
    worker = make_worker()
    peers = [worker.connect() for _ in range(4)]
    half = msgpack.packb([0, 1, "echo", ["x" * 1000]])
    for peer in peers:
        peer.send(half[:-10])
        wait_read(peer)
    worker.giving.release(Release(4, 1500))
    said = worker.said()
    assert said[-1] == (Released(2), [])
    for _, copy in gives(said):
        os.close(copy)
    stayed = [peer for peer in peers if peer.connection in worker.connections.open]
    for peer in stayed:
        peer.send(half[-10:])
        assert peer.wait(1) == [[1, None, "x" * 1000]]


def test_what_is_no_call_moves_and_ends_in_its_turn(make_worker: Callable[..., Worker]) -> None:
    """Where it went, the calls before it answered."""
    donor, adopter = make_worker(1, max_greenlets=1), make_worker(2)
    holder, bad = donor.connect(), donor.connect()
    holder.post("wait", "gate")
    until(lambda: donor.service.began, "it runs")
    bad.send(msgpack.packb([0, 1, "echo", ["fine"]]) + b"\xc1")
    wait_read(bad)
    for give, copy in gives(donor.release()):
        adopter.tell(give, [copy])
        os.close(copy)
    assert donor.connections.open == set()
    assert bad.wait(1) == [[1, None, "fine"]]
    bad.wait_end()
    assert adopter.limit_counts() == {"not_messagepack_rpc": 1}


def test_what_is_no_call_moves_though_replies_are_unread(make_worker: Callable[..., Worker]) -> None:
    """It would stay for as long as its peer likes, and a worker that retires with it."""
    donor, adopter = make_worker(1), make_worker(2)
    peer = donor.connect(buffer_bytes=4096)
    peer.post("large", HIGH_WATER_BYTES + 400_000)
    until(lambda: peer.connection.outbox.is_backed_up, "it does not read")
    peer.send(b"\xc1")
    peer.connection.inbox.receive()  # as if it had come before
    move(peer, donor, adopter)
    assert peer.connection.outbox.is_backed_up
    peer.wait_end()


# -- adopting


def adoptable(worker: Worker, cid: int = 7, **fields: Any) -> tuple[Peer, Give, int]:
    """A connection on its way to ``worker``."""
    theirs, ours = socket.socketpair()
    peer = Peer(ours, None)
    worker.strangers.append(peer)
    values = {"peer": ["127.0.0.1", 1], "is_eof": False, "input": b"", "output": b"", "awaited": [], **fields}
    return peer, Give(cid, **values), theirs.detach()


def test_nothing_is_done_before_it_is_announced(make_worker: Callable[..., Worker]) -> None:
    """As long as `Adopted` has not left this process, the connection is not touched; nor is the worker quiet."""
    worker = make_worker()
    worker.fill()
    peer, give, descriptor = adoptable(worker, input=msgpack.packb([0, 1, "echo", ["early"]]))
    worker.tell(give, [descriptor])
    os.close(descriptor)
    settle()
    assert not worker.handover_channel.is_quiet
    assert worker.service.began == []
    assert worker.connections.open == set()
    said: list[Message] = []
    until(lambda: said.extend(worker.told()) or Adopted(7) in said, "it is said")
    until(lambda: worker.connections.open, "it begins")
    (peer.connection,) = worker.connections.open
    assert peer.wait(1) == [[1, None, "early"]]
    assert worker.handover_channel.is_quiet


def test_a_forked_child_closes_what_is_not_announced(make_worker: Callable[..., Worker]) -> None:
    """Nothing else in the child holds it, and the peer would never see the end of its connection."""
    worker = make_worker()
    worker.fill()
    peer, give, descriptor = adoptable(worker)
    worker.tell(give, [descriptor])
    os.close(descriptor)
    settle()
    worker.adopting.leave_to_parent()
    peer.wait_end()


def test_what_it_says_meanwhile_does_not_keep_it_from_beginning(make_worker: Callable[..., Worker]) -> None:
    """Whatever drains the queue, every adoption in it begins."""
    worker = make_worker()
    worker.fill()
    peers = []
    for cid in (1, 2, 3):
        peer, give, descriptor = adoptable(worker, cid, input=msgpack.packb([0, cid, "echo", [cid]]))
        worker.tell(give, [descriptor])
        os.close(descriptor)
        peers.append(peer)
    worker.told()
    worker.tell(Reply(4711, 1, b"unknown"))
    for cid, peer in enumerate(peers, 1):
        until(peer.look, "its reply")
        assert peer.replies == [[1, cid, None, cid]]


def test_without_its_descriptor_it_is_refused(make_worker: Callable[..., Worker]) -> None:
    """This process may hold no more."""
    worker = make_worker()
    _, give, descriptor = adoptable(worker)
    os.close(descriptor)
    worker.tell(give)
    assert worker.told() == [Refused(7)]
    assert worker.connections.open == set()


def test_its_end_is_told(make_worker: Callable[..., Worker]) -> None:
    """For replies that are on their way to it; nobody asks after one that never moved."""
    worker = make_worker()
    own = worker.connect()
    peer, give, descriptor = adoptable(worker)
    worker.take(peer, give, [descriptor])
    own.close()
    peer.close()
    until(lambda: not worker.connections.open, "both have ended")
    assert worker.told() == [Adopted(7), Closed(7)]


def test_one_that_comes_when_all_stops_ends_too(make_worker: Callable[..., Worker]) -> None:
    """What it brings is answered, then it is closed, as those that were here."""
    worker = make_worker()
    worker.connections.stop_reading()
    peer, give, descriptor = adoptable(worker, input=msgpack.packb([0, 1, "echo", ["brought"]]))
    worker.take(peer, give, [descriptor])
    assert peer.wait(1) == [[1, None, "brought"]]
    peer.wait_end()
    peer.close()
    until(lambda: not worker.connections.open, "it has ended")


def test_one_that_is_blamed_waits_and_keeps_that_when_it_moves(make_worker: Callable[..., Worker]) -> None:
    """Neither what was read nor what comes begins before its time; replies to it go out, and it may end."""
    first, second = make_worker(1), make_worker(2)
    peer = first.connect()
    (give, descriptor) = gives(first.release())[0]
    until_then = second.now + 30
    call, reply = msgpack.packb([0, 7, "echo", ["read"]]), msgpack.packb([1, 3, None, "late"])
    second.take(peer, give._replace(input=call, output=reply, unread_until=until_then), [descriptor])
    peer.send(msgpack.packb([0, 8, "echo", ["coming"]]))
    assert peer.wait(1) == [[3, None, "late"]]
    second.jump(29)
    settle()
    assert (second.service.began, len(peer.look())) == ([], 1)
    assert second.told() == [Adopted(give.cid)]
    third = make_worker(3)
    third.now = second.now
    moved = move(peer, second, third)
    assert (moved.unread_until, moved.input) == (until_then, call)
    settle()
    assert third.service.began == []
    third.jump(2)
    assert peer.wait(3)[1:] == [[7, None, "read"], [8, None, "coming"]]
    assert not third.context.blamed


def test_one_that_is_blamed_may_end(make_worker: Callable[..., Worker]) -> None:
    first, second = make_worker(1), make_worker(2)
    peer = first.connect()
    (give, descriptor) = gives(first.release())[0]
    second.take(peer, give._replace(unread_until=second.now + 30), [descriptor])
    peer.connection.close()
    second.jump(31)
    assert not second.context.blamed


def test_a_worker_that_stops_leaves_the_rest_to_others(make_worker: Callable[..., Worker]) -> None:
    """It refuses what comes now, and passes on replies for what it has given away."""
    worker = make_worker()
    worker.adopting.stop()
    _, give, descriptor = adoptable(worker)
    worker.tell(give, [descriptor])
    os.close(descriptor)
    late = Reply(5, 3, b"late")
    worker.tell(late)
    assert worker.told() == [Refused(give.cid), late]


# -- replies


def test_a_reply_goes_behind_what_is_unsent(make_worker: Callable[..., Worker]) -> None:
    """Into the one queue of the connection: no bytes between those of another message."""
    worker = make_worker()
    old = pack_response(1, None, b"x" * 2_000_000)
    peer, give, descriptor = adoptable(worker, output=old, awaited=[[1, 2]])
    worker.take(peer, give, [descriptor])
    worker.tell(Reply(7, 1, pack_response(2, None, "behind it")))
    assert peer.wait(2) == [[1, None, b"x" * 2_000_000], [2, None, "behind it"]]


def test_a_reply_to_what_is_not_here_goes_back(make_worker: Callable[..., Worker]) -> None:
    """The connection was given on, or has ended, before the master knew."""
    one, other = make_worker(1), make_worker(2)
    peer = one.connect()
    give = move(peer, one, other)
    reply = Reply(give.cid, 3, pack_response(1, None, None))
    one.tell(reply)
    assert one.told() == [reply]
    peer.close()
    until(lambda: not other.connections.open, "it has ended")
    other.tell(reply)
    assert other.told() == [Closed(give.cid), reply]


def test_a_reply_that_nobody_awaits_is_not_answered_twice(make_worker: Callable[..., Worker]) -> None:
    """Its worker was said to have died; the caller has heard that already."""
    worker = make_worker()
    peer, give, descriptor = adoptable(worker, awaited=[[1, 2]])
    worker.take(peer, give, [descriptor])
    worker.tell(DonorGone(1, False))
    assert peer.wait(1) == [[2, LOST, None]]
    worker.tell(Reply(7, 1, pack_response(2, None, "late")))
    assert peer.call("echo", "next") == "next"
    assert len(peer.look()) == 2


def test_equal_msgids_are_told_apart_by_their_worker(make_worker: Callable[..., Worker]) -> None:
    """A msgid is only echoed: three calls of the same number, three replies."""
    worker = make_worker()
    peer, give, descriptor = adoptable(worker, awaited=[[1, 5], [1, 5], [2, 5]])
    worker.take(peer, give, [descriptor])
    worker.tell(Reply(7, 1, pack_response(5, None, "one")))
    worker.tell(DonorGone(1, False))
    worker.tell(Reply(7, 2, pack_response(5, None, "two")))
    assert peer.wait(3) == [[5, None, "one"], [5, LOST, None], [5, None, "two"]]
    assert peer.connection.is_at_rest


def test_many_calls_that_run_elsewhere_may_end_in_any_order(make_worker: Callable[..., Worker]) -> None:
    """Each is found at once: tens of thousands may have been parked there."""
    worker = make_worker(max_pending_calls=30_000)
    peer, give, descriptor = adoptable(worker, awaited=[[1, msgid] for msgid in range(30_000)])
    worker.take(peer, give, [descriptor])
    for msgid in reversed(range(30_000)):
        assert peer.connection.stop_awaiting((1, msgid))
    assert not peer.connection.stop_awaiting((1, 1))
    assert not peer.connection.awaited


def test_a_reply_that_came_without_its_bytes_ends_the_connection(
    make_worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture
) -> None:
    """Better than a caller who waits for ever."""
    worker = make_worker()
    peer, give, descriptor = adoptable(worker, awaited=[[1, 5]])
    worker.take(peer, give, [descriptor])
    with caplog.at_level("INFO"):
        worker.tell(Reply(7, 1, b""))
    peer.wait_end()
    assert worker.told() == [Adopted(7), Closed(7)]
    assert "a reply was lost" in caplog.text


@pytest.mark.parametrize(
    ("gone", "lost"),
    [
        (DonorGone(3, False), [30]),
        (DonorGone(4, False), []),
        (DonorGone(5, True), [10, 30, 50]),
        (DonorGone(6, True), [10, 30, 50]),
        (DonorGone(4, True), [10, 30]),
        (DonorGone(1, True), [10]),
    ],
)
def test_only_the_calls_of_the_dead_are_answered_for_them(
    make_worker: Callable[..., Worker], gone: DonorGone, lost: list[int]
) -> None:
    """By serial; with ``is_and_older`` all lower ones, too. The others are still awaited."""
    worker = make_worker(9)
    peer, give, descriptor = adoptable(worker, awaited=[[1, 10], [3, 30], [5, 50], [7, 70]])
    worker.take(peer, give, [descriptor])
    worker.tell(gone)
    worker.tell(gone)
    for serial, msgid in give.awaited:
        worker.tell(Reply(7, serial, pack_response(msgid, None, "alive")))
    replies = peer.wait(4)
    assert sorted(msgid for msgid, error, _ in replies if error == LOST) == lost
    assert sorted(msgid for msgid, _, result in replies if result == "alive") == sorted({10, 30, 50, 70} - set(lost))
    assert peer.call("echo", 1) == 1


def test_replies_of_a_donor_wait_for_room(make_worker: Callable[..., Worker]) -> None:
    """It is not quiet before the master has, or can have, all that was given and said."""
    worker = make_worker()
    peer = worker.connect()
    peer.post("wait", "gate")
    until(lambda: worker.service.began, "it runs")
    ((give, copy),) = gives(worker.release())
    worker.fill()
    worker.service.open("gate")
    until(lambda: worker.engine.is_quiet, "it ends")
    assert not worker.handover_channel.is_quiet
    found: list[Message] = []
    until(lambda: found.extend(worker.told()) or worker.handover_channel.is_quiet, "there is room")
    found += worker.told()
    assert found[-1] == Reply(give.cid, 1, pack_response(1, None, "gate"))
    os.close(copy)
