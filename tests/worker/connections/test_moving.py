"""A connection stops in one worker and goes on in another, wherever it was: nothing lost, nothing twice."""

from __future__ import annotations

import _socket
import os
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from rpccluster.protocol.codec import pack_response
from rpccluster.worker.connections.connection import Connection
from rpccluster.worker.hot import HIGH_WATER_BYTES

from ..rig import Gated, Peer, Rig, settle, until, wait_read

ADDRESS = ("127.0.0.1", 4711)


@pytest.fixture
def make_rig(make_rig: Callable[..., Rig]) -> Callable[..., Rig]:
    """Workers that share one service; a call that ran twice shows in its books."""
    service = Gated()
    return lambda **options: make_rig(service, **options)


def request(msgid: int, method: str, *params: Any) -> bytes:
    return msgpack.packb([0, msgid, method, params])


def running(rig: Rig, connection: Connection) -> int:
    return sum(outbox is connection.outbox and len(message) == 4 for outbox, message in rig.engine.running())


def move(peer: Peer, donor: Rig, adopter: Rig) -> None:
    """What two workers and a master do, without processes and channels."""
    connection = peer.connection
    taker: list[Connection] = []

    def forward(replies: list[bytes]) -> None:
        for data in replies:
            adopter.engine.answer(taker[0].outbox, data)

    waiting = donor.engine.withdraw({connection.outbox}).get(connection.outbox, [])
    awaited = running(donor, connection)
    given = connection.picture(waiting)
    sock = connection.move(forward)
    copy = _socket.socket(fileno=os.dup(sock.fileno()))
    sock.close()
    copy.setblocking(False)
    taker.append(adopter.connections._add(copy, given.peer))
    taker[0].take_over(given, [[1, 0]] * awaited)
    peer.connection = taker[0]


# -- cut anywhere


LARGE = HIGH_WATER_BYTES + 400_000  # beyond the kernel's buffers
LAST = request(9, "echo", {"text": "grüße", "list": [1, 2.5, None, b"\x00\xff"], "deep": [[[]]]})


@pytest.mark.parametrize("is_eof", [False, True], ids=["", "eof"])
@pytest.mark.parametrize("unread", ["", "unsent", "deferred"])
def test_at_every_byte_of_a_call(make_rig: Callable[..., Rig], unread: str, is_eof: bool) -> None:
    """One runs, one waits, one is cut; with replies that the peer has not read, calls deferred, and its end seen."""
    donor, adopter = make_rig(max_greenlets=1), make_rig()
    service = donor.service
    size = LARGE if unread == "deferred" else LARGE // 2
    offsets = range(len(LAST) + 1) if not is_eof else (0, 1, len(LAST))
    for offset in offsets:
        name = f"gate {offset}"
        calls = [("wait", name), ("echo", "waits")]
        if unread:
            calls.insert(0, ("large", size))
        if unread == "deferred":  # then none of them begins here
            service.open(name)
        data = b"".join(request(msgid, *call) for msgid, call in enumerate(calls))
        peer = donor.connect(buffer_bytes=65536 if unread else 0)
        peer.send(data + LAST[:offset])  # read at once: what comes later stays in the kernel
        wait_read(peer)
        if unread == "deferred":
            until(lambda peer=peer: peer.connection.outbox.is_backed_up and donor.engine.is_quiet, "calls are deferred")
        else:
            until(lambda name=name: name in service.began, "one runs")
        if is_eof:
            peer.shut()
        move(peer, donor, adopter)
        if not is_eof:
            peer.send(LAST[offset:])
        service.open(name)
        expected = [b"x" * call[1] if call[0] == "large" else call[1] for call in calls]
        if not is_eof or offset == len(LAST):
            expected.append(msgpack.unpackb(LAST)[3][0])
        peer.wait(len(expected))
        if is_eof:
            peer.wait_end()
        replies = sorted(peer.look(), key=lambda reply: reply[1])
        assert [(reply[2], reply[3]) for reply in replies] == [(None, result) for result in expected]
        peer.close()
        peer.connection.close()
        donor.service.gates.pop(name)
    assert service.began.count("waits") == len(offsets)
    assert not donor.connections.open
    assert not donor.context.partial
    assert donor.engine.is_quiet


@pytest.mark.parametrize("size", [0, 300_000])
def test_one_whose_end_was_seen(make_rig: Callable[..., Rig], size: int) -> None:
    """Its running call is answered, behind what it has yet to read; then comes the end, and not before."""
    donor, adopter = make_rig(), make_rig()
    peer = donor.connect(buffer_bytes=65536 if size else 0)
    peer.send((request(1, "large", size) if size else b"") + request(2, "wait", "gate"))
    until(lambda: "gate" in donor.service.began, "it runs")
    peer.shut()
    until(lambda: peer.connection.outbox.reports, "the end is seen")
    move(peer, donor, adopter)
    settle()
    assert not peer.is_at_end
    donor.service.open("gate")
    peer.wait_end()
    assert [reply[3] for reply in peer.look()] == [*([b"x" * size] if size else []), "gate"]
    assert not adopter.connections.open


def test_one_that_is_at_rest(make_rig: Callable[..., Rig]) -> None:
    """There and back again."""
    one, other = make_rig(), make_rig()
    peer = one.connect()
    for donor, adopter in ((one, other), (other, one)) * 3:
        assert peer.connection.is_at_rest
        move(peer, donor, adopter)
        assert peer.call("echo", "here") == "here"
        assert (len(donor.connections.open), len(adopter.connections.open)) == (0, 1)
        assert peer.connection.outbox.peer == "127.0.0.1:4711"


def test_a_long_message_in_many_pieces(make_rig: Callable[..., Rig]) -> None:
    """Moved again and again while it arrives; part of it is always still in the kernel."""
    rigs = [make_rig(), make_rig()]
    peer = rigs[0].connect()
    text = os.urandom(100_000)
    data = request(1, "echo", text)
    for number, start in enumerate(range(0, len(data), 10_000)):
        peer.send(data[start : start + 10_000])
        if number % 2:
            wait_read(peer)
        move(peer, rigs[number % 2], rigs[1 - number % 2])
    assert peer.wait(1) == [[1, None, text]]


def test_what_is_moved_arrives_as_it_came(make_rig: Callable[..., Rig]) -> None:
    """Waiting calls are packed anew: every type, and the deepest nesting that can be decoded."""
    donor, adopter = make_rig(max_greenlets=1, max_depth=500), make_rig(max_depth=500)
    peer = donor.connect()
    values = [
        -(2**63),
        2**64 - 1,
        0.1,
        {1: "one", None: [], b"key": {}},
        "no utf-8: \udcff",
        msgpack.ExtType(5, b"data"),
        msgpack.Timestamp(2**33, 999_999_999),
        b"",
    ]
    peer.post("wait", "gate")
    for value in values:
        peer.send(msgpack.packb([0, 7, "echo", [value]], unicode_errors="surrogateescape"))
    peer.send(b"\x94\x00\x07\xa4echo\x91" + b"\x91" * 498 + b"\xc0")
    wait_read(peer)
    move(peer, donor, adopter)
    replies = peer.wait(len(values) + 1)
    assert [result for _, _, result in replies[:-1]] == values
    deep = replies[-1][2]
    for _ in range(498):
        (deep,) = deep
    assert deep is None
    donor.service.open("gate")
    peer.wait(len(values) + 2)


def test_input_that_is_no_message_ends_it_where_it_went(make_rig: Callable[..., Rig]) -> None:
    """The donor had not looked at it; the adopter closes the connection, and nothing else."""
    donor, adopter = make_rig(max_greenlets=1), make_rig()
    bad, good = donor.connect(), donor.connect()
    good.post("wait", "gate")
    until(lambda: donor.service.began, "it runs")
    bad.send(msgpack.packb("no call"))
    good.post("echo", "fine")
    wait_read(bad)
    wait_read(good)
    move(bad, donor, adopter)
    move(good, donor, adopter)
    bad.wait_end()
    assert good.wait(1) == [[2, None, "fine"]]
    donor.service.open("gate")
    assert good.wait(2)[1] == [1, None, "gate"]


def test_a_message_that_cannot_be_packed_changes_nothing(make_rig: Callable[..., Rig]) -> None:
    """It says so, and the connection is still the donor's."""
    rig = make_rig()
    peer = rig.connect()
    with pytest.raises(TypeError):
        peer.connection.picture([[0, 1, "echo", [object()]]])
    assert peer.connection.is_movable
    assert peer.call("echo", 1) == 1


# -- limits go along


def test_calls_that_run_elsewhere_are_pending(make_rig: Callable[..., Rig]) -> None:
    """They count against max_pending_calls in the new worker, too, and not any more when they are answered."""
    donor, adopter = make_rig(), make_rig(max_pending_calls=3)
    peer = donor.connect()
    for name in "abc":
        peer.post("wait", name)
    until(lambda: len(donor.service.began) == 3, "they run")
    move(peer, donor, adopter)
    peer.post("echo", "one too many")
    assert peer.wait(1) == [[4, None, "one too many"]]
    peer.post("echo", "not read yet")
    settle()
    assert "not read yet" not in donor.service.began
    donor.service.open("a", "b")
    assert peer.wait(4)[-1] == [5, None, "not read yet"]
    donor.service.open("c")
    peer.wait(5)
    until(lambda: peer.connection.is_at_rest, "all are answered")


def test_a_peer_that_does_not_read_is_still_waited_for(make_rig: Callable[..., Rig]) -> None:
    """Its calls wait in the new worker, as they did in the old one; nothing runs twice."""
    donor, adopter = make_rig(), make_rig()
    peer = donor.connect(buffer_bytes=4096)
    peer.send(request(1, "large", LARGE) + request(2, "echo", "later"))
    until(lambda: peer.connection.outbox.is_backed_up, "it does not read")
    move(peer, donor, adopter)
    assert peer.connection.outbox.is_backed_up
    settle()
    assert "later" not in donor.service.began
    assert [len(result) for _, _, result in peer.wait(2)] == [LARGE, len("later")]
    assert donor.service.began == [LARGE, "later"]


# -- what the engine does for it


def test_withdrawing_takes_what_waits_and_nothing_else(make_rig: Callable[..., Rig]) -> None:
    """In its order; others keep their turn, what runs goes on, and the count of calls stays right."""
    rig = make_rig(max_greenlets=1)
    one, other = rig.connect(), rig.connect()
    one.post("wait", "gate")
    until(lambda: rig.service.began, "it runs")
    for peer, name in ((one, "one"), (other, "other")):
        peer.send(b"".join(request(2 + number, "echo", f"{name} {number}") for number in range(3)))
        wait_read(peer)
    waiting = rig.engine.withdraw({one.connection.outbox}).get(one.connection.outbox, [])
    content = one.connection.inbox.content(waiting)
    assert content == b"".join(request(2 + number, "echo", f"one {number}") for number in range(3))
    one.connection.inbox.drop_waiting()
    assert rig.engine.withdraw({one.connection.outbox}) == {}
    assert rig.engine.withdraw(set()) == {}
    assert [message for _, message in rig.engine.running()] == [[0, 1, "wait", ["gate"]]]
    assert rig.engine.calls == 0
    rig.service.open("gate")
    assert one.wait(1) == [[1, None, "gate"]]
    assert [result for _, _, result in other.wait(3)] == ["other 0", "other 1", "other 2"]
    assert rig.service.began == ["gate", "other 0", "other 1", "other 2"]
    assert rig.engine.calls == 4
    assert rig.engine.is_quiet


def test_replies_of_elsewhere_go_behind_those_that_have_gathered(make_rig: Callable[..., Rig]) -> None:
    """In their order, in one turn, though nothing of this connection runs here."""
    rig = make_rig()
    peer = rig.connect()
    peer.connection.outbox.expect([1, 2, 3])
    for msgid in (1, 2, 3):
        rig.engine.answer(peer.connection.outbox, pack_response(msgid, None, "elsewhere"))
    assert peer.wait(3) == [[msgid, None, "elsewhere"] for msgid in (1, 2, 3)]
    assert peer.connection.is_at_rest


def test_replies_for_a_closed_connection_are_counted(make_rig: Callable[..., Rig]) -> None:
    """And dropped, wherever they were made."""
    rig = make_rig()
    peer = rig.connect()
    peer.connection.close()
    rig.engine.answer(peer.connection.outbox, pack_response(1, None, None))
    until(lambda: rig.engine.dropped_replies == 1, "it is counted")
