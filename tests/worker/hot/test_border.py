"""What stands between the hot room and the rest of a worker: a few names, and what a listener hears, without any
connection. Another build of the same names has to pass this."""

from __future__ import annotations

import _socket
import socket
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import msgpack
import pytest

from rpccluster.errors import ProtocolError
from rpccluster.worker import hot
from rpccluster.worker.hot import HIGH_WATER_BYTES, Happened

from ..rig import Gated, Peer, Rig, settle, tcp_pair, until


class Ear:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Happened] = []
        self.errors: list[ProtocolError] = []

    def handle(self, happened: Happened) -> None:
        self.heard.append(happened)

    def refuse(self, error: ProtocolError) -> None:
        self.errors.append(error)


class Ends(Peer):
    """A peer, and the inbox and the outbox of its socket."""

    def __init__(self, rig: Rig, *, tcp: bool = False) -> None:
        theirs, ours = tcp_pair() if tcp else socket.socketpair()
        super().__init__(ours, None)
        self.ear = Ear()
        self.raw = _socket.socket(fileno=theirs.detach())
        self.raw.setblocking(False)
        self.inbox, self.outbox = rig.engine.connect(self.raw, "somebody", self.ear)

    def close(self) -> None:
        super().close()
        self.inbox.close()
        self.outbox.close()
        self.raw.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(max_pending_calls=4, max_greenlets=2)
    yield made
    made.service.open(*made.service.gates)
    settle()
    made.close()


@pytest.fixture
def connect(rig: Rig) -> Iterator[Callable[..., Ends]]:
    made: list[Ends] = []

    def make(**options: Any) -> Ends:
        made.append(Ends(rig, **options))
        return made[-1]

    yield make
    for ends in made:
        ends.close()


def request(msgid: int, method: str, *params: Any) -> bytes:
    return msgpack.packb([0, msgid, method, params])


def test_the_room_has_few_names() -> None:
    """Each has its sentence in the room's charter."""
    assert hot.__all__ == ["HIGH_WATER_BYTES", "Engine", "Happened", "Inbox", "Listener", "Outbox", "make_engine"]
    assert all(f"\n`{name}` " in str(hot.__doc__) for name in hot.__all__)


def test_a_call_is_answered_and_nobody_hears_of_it(connect: Callable[..., Ends]) -> None:
    """The common case costs the connection nothing."""
    ends = connect()
    assert ends.call("echo", 1) == 1
    assert (ends.ear.heard, ends.outbox.pending) == ([], 0)


def test_the_peers_end_is_heard(connect: Callable[..., Ends]) -> None:
    """What it has sent before is answered."""
    ends = connect()
    ends.send(request(1, "echo", 1))
    ends.shut()
    assert ends.wait(1) == [[1, None, 1]]
    until(lambda: Happened.PEER_ENDED in ends.ear.heard, "it is heard")


def test_a_broken_socket_is_heard(connect: Callable[..., Ends]) -> None:
    """Of a peer that has reset it."""
    ends = connect(tcp=True)
    ends.reset()
    until(lambda: ends.ear.heard, "it is heard")
    assert ends.ear.heard[0] is Happened.BROKEN


def test_an_incomplete_call_is_heard(connect: Callable[..., Ends]) -> None:
    """Once when it begins, once when it is whole; not for each piece."""
    ends = connect()
    data = request(1, "echo", "x" * 100)
    for place in range(0, len(data), 20):
        ends.send(data[place : place + 20])
        settle()
    assert ends.wait(1) == [[1, None, "x" * 100]]
    of_the_call = [happened for happened in ends.ear.heard if happened.name.endswith("COMPLETE")]
    assert of_the_call == [Happened.INCOMPLETE, Happened.COMPLETE]
    assert ends.inbox.partial is None


def test_long_calls_of_several_peers_come_whole(rig: Rig, connect: Callable[..., Ends]) -> None:
    """Of a peer that has sent a long call, another one is expected: it is not received in pieces while others wait."""
    if rig.engine.name != "compiled":
        pytest.skip("the Python engine receives little while long calls wait")
    peers, value = [connect() for _ in range(4)], "x" * 4000
    for each in range(3):
        for ends in peers:
            ends.ear.heard.clear()
            ends.send(request(each, "echo", value))
        for ends in peers:
            assert ends.wait(each + 1)[-1] == [each, None, value]
    assert [ends.ear.heard for ends in peers] == [[]] * 4


def test_an_idle_connection_takes_little_memory(rig: Rig, connect: Callable[..., Ends]) -> None:
    """There may be very many: what one has is counted in bytes."""
    if rig.engine.name != "compiled":
        pytest.skip("the Python engine has several objects for each")
    assert type(connect().inbox).__basicsize__ <= 256


def test_garbage_is_heard_at_once_and_in_its_turn(connect: Callable[..., Ends]) -> None:
    """So that nothing behind it is read, and the calls before it are answered."""
    ends = connect()
    ends.send(request(1, "echo", 1) + b"\xc1")
    settle()
    assert ends.ear.heard == [Happened.UNDECODABLE]
    assert len(ends.ear.errors) == 1
    assert ends.wait(1) == [[1, None, 1]]


def test_too_many_pending_calls_are_heard(rig: Rig, connect: Callable[..., Ends]) -> None:
    """And while it is asked for, that calls have been answered."""
    rig.options.set(max_greenlets=10)
    ends = connect()
    ends.send(b"".join(request(number, "wait", "gate") for number in range(5)))
    settle()
    assert ends.ear.heard == [Happened.PENDING]
    assert (ends.outbox.pending, ends.outbox.has_room_again) == (5, False)
    ends.outbox.reports = True
    rig.service.open("gate")
    ends.wait(5)
    assert Happened.ANSWERED in ends.ear.heard
    assert (ends.outbox.pending, ends.outbox.has_room_again) == (0, True)


def test_a_lack_of_greenlets_is_heard_and_its_end(rig: Rig, connect: Callable[..., Ends]) -> None:
    """By those that send while there is none."""
    taker, other = connect(), connect()
    taker.send(b"".join(request(number, "wait", "gate") for number in range(3)))
    until(lambda: rig.engine.is_full, "all are taken")
    other.send(request(1, "echo", 1))
    settle()
    assert other.ear.heard == [Happened.NO_GREENLET]
    rig.service.open("gate")
    assert other.wait(1) == [[1, None, 1]]
    until(lambda: other.ear.heard == [Happened.NO_GREENLET, Happened.ITS_TURN], "it may be read")


def test_unread_replies_are_heard(connect: Callable[..., Ends]) -> None:
    """High water when they are many, low water and their end when the peer reads."""
    ends = connect()
    ends.send(request(1, "large", 4 * HIGH_WATER_BYTES))
    settle()
    assert ends.ear.heard == [Happened.UNSENT, Happened.HIGH_WATER]
    assert ends.outbox.is_backed_up
    ends.wait(1)
    until(lambda: Happened.SENT in ends.ear.heard, "all is sent")
    assert ends.ear.heard.count(Happened.LOW_WATER) == 1
    assert not ends.outbox.is_backed_up
    assert ends.outbox.unsent is None


def test_what_is_put_off_runs_later_in_its_order(rig: Rig, connect: Callable[..., Ends]) -> None:
    """What comes meanwhile, too."""
    ends = connect()
    ends.inbox.put_off()
    for number in range(3):
        ends.send(request(number, "echo", number))
        settle()
        ends.inbox.receive()
    assert (rig.service.began, len(ends.inbox.unbegun())) == ([], 3)
    assert ends.outbox.pending > 0
    ends.inbox.go_on()
    assert ends.wait(3) == [[number, None, number] for number in range(3)]
    assert (rig.service.began, rig.engine.calls) == ([0, 1, 2], 3)


def test_content_goes_on_in_another_engine(connect: Callable[..., Ends]) -> None:
    """Calls that were put off, and the first bytes of one that is incomplete."""
    ends = connect()
    last = request(3, "echo", "x" * 50)
    ends.inbox.put_off()
    ends.send(request(1, "echo", 1) + request(2, "echo", 2) + last[:10])
    settle()
    ends.inbox.receive()
    other = Rig(Gated())
    taker = Ends(other)
    taker.inbox.restore(ends.inbox.content([]))
    taker.send(last[10:])
    assert taker.wait(3) == [[1, None, 1], [2, None, 2], [3, None, "x" * 50]]
    assert ends.inbox.content([])[-10:] == last[:10]  # taking it has changed nothing
    taker.close()
    other.close()


def test_starting_and_stopping_may_come_at_any_time(connect: Callable[..., Ends]) -> None:
    """Twice, in either order, at the end, and after it: nothing is lost before, and nothing happens after."""
    ends = connect()
    ends.inbox.stop()
    ends.inbox.stop()
    ends.send(request(1, "echo", 1))
    settle()
    assert ends.outbox.pending == 0
    ends.inbox.start()
    ends.inbox.start()
    assert ends.wait(1) == [[1, None, 1]]
    ends.inbox.receive_last()
    ends.send(request(2, "echo", 2))
    until(lambda: ends.ear.heard == [Happened.HEARD_LAST], "it is heard")
    for _ in range(2):
        ends.inbox.close()
        ends.outbox.close()
    ends.outbox.put(msgpack.packb([1, 3, None, "late"]))
    ends.outbox.flush()
    settle()
    assert ends.ear.heard == [Happened.HEARD_LAST]


def test_what_is_discarded_is_nobodys(rig: Rig, connect: Callable[..., Ends]) -> None:
    """But the peer's end."""
    ends = connect()
    ends.inbox.discard()
    ends.send(request(1, "echo", 1))
    ends.shut()
    until(lambda: Happened.PEER_ENDED in ends.ear.heard, "it is heard")
    assert rig.service.began == []


def test_replies_of_a_closed_outbox_are_dropped_or_forwarded(rig: Rig, connect: Callable[..., Ends]) -> None:
    """Forwarded if their connection has moved."""
    dropped, moved = connect(), connect()
    forwarded: list[bytes] = []
    for ends in (dropped, moved):
        ends.send(request(1, "wait", "gate"))
    until(lambda: len(rig.service.began) == 2, "they run")
    moved.outbox.forward_to(forwarded.extend)
    for ends in (dropped, moved):
        ends.inbox.close()
        ends.outbox.close()
    rig.service.open("gate")
    until(lambda: rig.engine.is_quiet, "they have ended")
    gevent.sleep(0)
    assert rig.engine.dropped_replies == 1
    assert forwarded == [msgpack.packb([1, 1, None, "gate"])]
