"""One connection and all of them: what bounds them, how they end, and that a bad one harms itself alone."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import sys
from typing import Any, Callable

import msgpack
import pytest

from rpccluster.ipc.scoreboard import Cell
from rpccluster.protocol import codec
from rpccluster.worker.connections.connection import Connection
from rpccluster.worker.connections.given import address_of, peer_of
from rpccluster.worker.hot import HIGH_WATER_BYTES, Happened

from ..rig import Peer, Rig, settle, until, wait_read


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """One with the defaults."""
    return make_rig()


# -- input


def test_calls_in_any_pieces(rig: Rig) -> None:
    """Byte by byte, and cut at random places, many connections at once."""
    stream = b"".join(msgpack.packb([0, number, "echo", ["ä" * number]]) for number in range(40))
    peers = [rig.connect() for _ in range(4)]
    noise = random.Random(3)
    places = [sorted(noise.sample(range(1, len(stream)), 60)) for _ in peers]
    for number in range(61):
        for peer, cuts in zip(peers, places):
            borders = [0, *cuts, len(stream)]
            peer.send(stream[borders[number] : borders[number + 1]])
        settle()
    for peer in peers:
        assert peer.wait(40) == [[number, None, "ä" * number] for number in range(40)]


def test_a_large_message_and_small_ones_behind_it(rig: Rig) -> None:
    """Both are answered, and nothing is kept afterwards."""
    peer = rig.connect()
    payload = os.urandom(900_000)
    peer.send(msgpack.packb([0, 1, "echo", [payload]]) + msgpack.packb([0, 2, "echo", [2]]) * 5000)
    replies = peer.wait(5001)
    assert replies[0] == [1, None, payload]
    assert replies[1:] == [[2, None, 2]] * 5000
    assert not rig.context.partial


def test_a_message_may_have_exactly_as_many_bytes_as_allowed(make_rig: Callable[..., Rig]) -> None:
    """One byte more, and its caller gets an error."""
    message = msgpack.packb([0, 1, "echo", [b"x" * 70_000]])
    peer = make_rig(max_message_size=len(message)).connect()
    peer.send(message + msgpack.packb([0, 2, "echo", [2]]) * 100)
    assert len(peer.wait(101)) == 101
    peer = make_rig(max_message_size=len(message) - 1).connect()
    peer.send(message)
    ((_, error, _),) = peer.wait(1)
    assert error == f"ArgumentError: found a message of more than {len(message) - 1} bytes (max_message_size)"


GARBAGE = [
    b"\xc1",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00",
    b"\x90",
    b"\x80",
    b"\xa3abc",
    b"\x94\x01\x01\xc0\xc0",
    b"\x94\x03\x01\xa1m\x90",
    b"\x94\xc2\x01\xa8rpc.ping\x90",
    b"\x94\xc3\x01\xa8rpc.ping\x90",
    b"\x94\xc0\x01\xa8rpc.ping\x90",
    b"\x94\xcb\x00\x00\x00\x00\x00\x00\x00\x00\x01\xa8rpc.ping\x90",
    b"\x94\xa0\x01\xa8rpc.ping\x90",
    b"\x94\x90\x01\xa8rpc.ping\x90",
    b"\x94\x00\xff\xa8rpc.ping\x90",
    b"\x94\x00\xc3\xa8rpc.ping\x90",
    b"\x94\x00\xc0\xa8rpc.ping\x90",
    b"\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa8rpc.ping\x90",
    b"\x94\x00\x01\xc0\x90",
    b"\x94\x00\x01\x91\xa1m\x90",
    b"\x93\x00\x01\xa8rpc.ping",
    b"\x95\x00\x01\xa8rpc.ping\x90\x90",
    b"\x93\x02\xa8rpc.ping\xc0",
    b"\x94\x02\xa8rpc.ping\x90\x90",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\x94\x00\xff\xa1m\x91\x81\x80\x01",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda data: repr(data[:12]))
def test_bytes_that_are_not_messagepack_rpc_close_the_connection(
    rig: Rig, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """With one log line that names the peer; a call of another connection that runs meanwhile is answered."""
    bad, good = rig.connect(), rig.connect()
    good.post("wait", "gate")
    until(lambda: rig.service.began)
    bad.send(garbage)
    bad.wait_end()
    assert bad.replies == []
    (record,) = caplog.records
    assert record.getMessage().startswith("Closing the connection of 127.0.0.1:4711: found ")
    rig.service.open("gate")
    assert good.wait(1) == [[1, None, "gate"]]
    assert bad.connection not in rig.connections.open
    assert rig.engine.is_quiet


@pytest.mark.parametrize("garbage", [b"\xc1", b"\x05", b"\x94\x01\x01\xc0\xc0", b"\x81\x80\x01"], ids=repr)
@pytest.mark.parametrize("size", [0, 20_000], ids=["in one piece", "in many"])
def test_what_comes_before_garbage_is_answered_and_what_comes_behind_is_not_run(
    rig: Rig, garbage: bytes, size: int
) -> None:
    """However much there is of it, and whether decoding fails or what was decoded is no message."""
    peer = rig.connect()
    before = b"".join(msgpack.packb([0, number, "echo", [[number, "x" * size]]]) for number in range(3))
    peer.send(before + garbage)
    peer.send(msgpack.packb([0, 9, "echo", ["behind"]]))
    peer.wait_end()
    assert [reply[1] for reply in peer.replies] == [0, 1, 2]
    assert "behind" not in rig.service.began
    assert rig.limit_counts() == {"not_messagepack_rpc": 1}


def test_what_passes_a_limit_is_counted(make_rig: Callable[..., Rig]) -> None:
    """By the option's name; the connection ends if the message is no call, or far beyond it."""
    rig = make_rig(max_message_size=10_000, max_depth=10)
    for attack in (
        b"\x91" * 11 + b"\xc0",
        b"\xdc\x00\x10" * 11,
        b"\x94\x00\x01\xa4echo\x91\xc6\xff\xff\xff\xff",
        b"\x94\x00\x01\xa4echo\x91\xdd\xff\xff\xff\xff",
    ):
        peer = rig.connect()
        peer.send(attack)
        peer.wait_end()
        assert peer.replies == []
    assert rig.limit_counts() == {"max_depth": 2, "max_message_size": 2}


def test_calls_before_the_garbage_are_not_left_in_the_queue(rig: Rig) -> None:
    """They run, or are gone; in any case the worker comes to rest and its log has one line."""
    for garbage in (b"\xc1", b"\x05", b"\x94\x01\x01\xc0\xc0", b"\x05\x05\xc1"):
        peer = rig.connect()
        peer.send(msgpack.packb([0, 1, "echo", [1]]) * 50 + garbage)
        peer.wait_end()
        until(lambda: rig.engine.is_quiet)
    assert rig.connect().call("echo", 1) == 1


def test_a_worker_serves_on_after_random_bytes(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Two hundred connections of noise."""
    caplog.set_level("CRITICAL")
    noise = random.Random(7)
    good = rig.connect()
    for number in range(200):
        bad = rig.connect()
        bad.sock.send(noise.randbytes(noise.randrange(1, 300)))
        if number % 10 == 0:
            assert good.call("echo", number) == number
        bad.sock.close()
    assert good.call("echo", 1) == 1
    until(lambda: rig.connections.open == {good.connection})


# -- pending calls


def test_a_connection_may_have_only_so_many_unanswered_calls(make_rig: Callable[..., Rig]) -> None:
    """Past it the worker stops reading that connection, and no other; it reads on when half of them are answered."""
    rig = make_rig(max_pending_calls=10)
    peer, other = rig.connect(), rig.connect()
    for number in range(60):
        peer.post("wait", number)
        settle()
    begun = len(rig.service.began)
    assert 11 <= begun < 60
    for number in range(60, 90):
        peer.post("wait", number)
    settle()
    assert len(rig.service.began) == begun
    assert other.call("echo", "served") == "served"
    rig.service.open(*range(begun - 5))
    until(lambda: len(rig.service.began) > begun + 1)
    rig.service.open(*range(90))
    assert len(peer.wait(90)) == 90
    assert peer.connection.outbox.pending == 0


def test_notifications_count_as_pending_calls(make_rig: Callable[..., Rig]) -> None:
    """A flood of them is bounded, too, and goes on."""
    rig = make_rig(max_pending_calls=10)
    peer = rig.connect()
    for number in range(40):
        peer.notify("wait", number)
        settle()
    assert 11 <= len(rig.service.began) < 40
    rig.service.open(*range(40))
    until(lambda: len(rig.service.ended) == 40)
    assert peer.call("echo", 1) == 1


# -- output


def test_a_peer_that_does_not_read_is_waited_for(make_rig: Callable[..., Rig]) -> None:
    """Its unsent output is bounded by the high-water mark, its calls wait; others are served, and nothing is lost."""
    rig = make_rig()
    slow, other = rig.connect(buffer_bytes=16_384), rig.connect()
    for _ in range(200):
        slow.post("large", 100_000)
    settle()
    begun = rig.service.began.count(100_000)
    assert HIGH_WATER_BYTES // 100_000 <= begun <= HIGH_WATER_BYTES // 100_000 + 5
    assert other.call("echo", 1) == 1
    assert slow.connection.outbox.is_backed_up
    replies = slow.wait(200)
    assert [reply[0] for reply in replies] == list(range(1, 201))
    assert all(len(reply[2]) == 100_000 for reply in replies)
    assert not slow.connection.outbox.is_backed_up
    assert not rig.context.unsent
    assert slow.call("echo", 2) == 2


@pytest.mark.parametrize("size", [1, 1000, 65_536])
def test_what_waits_for_a_peer_takes_up_hardly_more_memory_than_it_has_bytes(
    make_rig: Callable[..., Rig], size: int
) -> None:
    """1.5 times the high-water mark, with the calls that are put off, whether the replies are small or large."""
    tracemalloc = pytest.importorskip("tracemalloc")  # PyPy has none

    class Service:
        def large(self, size: int) -> bytes:
            return b"x" * size

    peer = make_rig(Service()).connect(buffer_bytes=8192)
    calls = msgpack.packb([0, 1, "large", [size]]) * 500
    tracemalloc.start()
    while not peer.connection.outbox.is_backed_up:
        with contextlib.suppress(BlockingIOError):
            peer.sock.send(calls)
        settle()
    of_the_worker = tracemalloc.Filter(False, codec.__file__)  # its one Unpacker, and its Packers
    traces = tracemalloc.take_snapshot().filter_traces([of_the_worker])
    tracemalloc.stop()
    assert sum(trace.size for trace in traces.statistics("filename")) < 1.5 * HIGH_WATER_BYTES


def test_a_reply_larger_than_all_buffers_arrives_whole(make_rig: Callable[..., Rig]) -> None:
    """And small ones behind it in their order."""
    rig = make_rig()
    peer = rig.connect(buffer_bytes=8192)
    peer.post("large", 5_000_000)
    for number in range(20):
        peer.post("echo", number)
    replies = peer.wait(21)
    assert len(replies[0][2]) == 5_000_000
    assert [reply[2] for reply in replies[1:]] == list(range(20))


def test_a_choked_peer_that_goes_leaves_nothing_behind(make_rig: Callable[..., Rig]) -> None:
    """Its deferred calls and unsent output go with it."""
    rig = make_rig()
    peer = rig.connect(tcp=True, buffer_bytes=8192)
    for _ in range(100):
        peer.post("large", 100_000)
    until(lambda: peer.connection.outbox.is_backed_up)
    peer.reset()
    until(lambda: not rig.connections.open)
    until(lambda: rig.engine.is_quiet)
    assert not rig.context.unsent
    assert rig.connect().call("echo", 1) == 1


# -- the client's end


def test_after_a_clients_end_of_file_its_calls_are_answered(rig: Rig) -> None:
    """Those that run and those that wait; then the connection is closed."""
    peer = rig.connect()
    peer.post("wait", "gate")
    peer.post("echo", 2)
    peer.shut()
    assert peer.wait(1) == [[2, None, 2]]
    settle()
    assert not peer.connection.is_closed
    rig.service.open("gate")
    assert peer.wait(2)[1] == [1, None, "gate"]
    peer.wait_end()
    assert not rig.connections.open


def test_an_end_of_file_after_a_large_unread_reply(make_rig: Callable[..., Rig]) -> None:
    """Everything is sent before the end."""
    rig = make_rig()
    peer = rig.connect(buffer_bytes=8192)
    for _ in range(30):
        peer.post("large", 100_000)
    peer.shut()
    settle()
    assert len(peer.wait(30)) == 30
    peer.wait_end()
    until(lambda: not rig.connections.open)


def test_an_end_of_file_in_mid_message_ends_the_connection(rig: Rig) -> None:
    """What is incomplete is nobody's call."""
    peer = rig.connect()
    peer.post("echo", 1)
    peer.send(b"\x94\x00\x05\xa4ec")
    peer.shut()
    assert peer.wait(1) == [[1, None, 1]]
    peer.wait_end()
    assert rig.service.began == [1]
    assert not rig.context.partial


def test_after_a_reset_calls_run_on_and_their_replies_are_counted(rig: Rig) -> None:
    """Dropped, every one of them."""
    peer = rig.connect(tcp=True)
    for number in range(5):
        peer.post("wait", number)
    until(lambda: len(rig.service.began) == 5)
    peer.reset()
    until(lambda: peer.connection.is_closed)
    assert rig.engine.active_calls == 5
    rig.service.open(*range(5))
    until(lambda: rig.engine.is_quiet and rig.engine.dropped_replies == 5)
    assert len(rig.service.ended) == 5


def test_replies_that_cannot_be_sent_are_counted(rig: Rig) -> None:
    """All that were to leave together."""
    peer = rig.connect()
    for number in range(7):
        peer.post("wait", number)
    until(lambda: len(rig.service.began) == 7)
    peer.sock.close()
    rig.service.open(*range(7))
    until(lambda: peer.connection.is_closed and rig.engine.is_quiet)
    assert rig.engine.dropped_replies == 7


def test_a_closed_connection_can_be_told_anything(rig: Rig) -> None:
    """Whatever still holds it may call it: nothing happens, and above all not to another's descriptor."""
    peer = rig.connect()
    connection = peer.connection
    connection.close()
    other = rig.connect()
    for tell in (connection.stop_reading, connection.outbox.flush, lambda: connection.handle(Happened.ITS_TURN)):
        tell()
    connection.close("again")
    settle()
    assert rig.connections.open == {other.connection}
    assert not rig.context.lingering
    assert other.call("echo", 1) == 1


# -- deadlines


def test_an_idle_connection_is_closed(make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture) -> None:
    """After idle_timeout without a message; not one whose call runs."""
    caplog.set_level("INFO")
    rig = make_rig(idle_timeout=5)
    idle, busy = rig.connect(), rig.connect()
    busy.post("wait", "gate")
    settle()
    rig.jump(4.5)
    assert not idle.connection.is_closed
    rig.jump(1)
    assert idle.connection.is_closed
    rig.jump(20)
    assert not busy.connection.is_closed
    assert caplog.messages == ["Closing the connection of 127.0.0.1:4711: idle_timeout passed"]
    rig.service.open("gate")
    assert busy.wait(1)


def test_messages_keep_a_connection_from_being_idle(make_rig: Callable[..., Rig]) -> None:
    """However long it lasts."""
    rig = make_rig(idle_timeout=5)
    peer = rig.connect()
    for _ in range(10):
        assert peer.call("echo", 1) == 1
        rig.jump(4)


def test_a_message_must_be_complete_in_time(make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture) -> None:
    """From its first byte on; more bytes of it do not help, and whole messages before it do not count."""
    caplog.set_level("INFO")
    rig = make_rig(message_timeout=5)
    slow, fine = rig.connect(), rig.connect()
    fine.send(b"\x94\x00\x01")
    settle()
    assert rig.context.partial.keys() == {fine.connection}
    fine.send(b"\xa4echo\x91\x01")
    assert fine.wait(1) == [[1, None, 1]]
    slow.send(msgpack.packb([0, 1, "echo", [1]]) + b"\xdc\xff\xff")
    for _ in range(5):
        settle()
        assert not slow.connection.is_closed
        rig.jump(1)
        slow.sock.send(b"\x01")
    rig.jump(0.5)
    assert slow.connection.is_closed
    assert caplog.messages == ["Closing the connection of 127.0.0.1:4711: message_timeout passed"]
    rig.jump(20)
    assert not fine.connection.is_closed


def test_each_message_has_its_own_time(make_rig: Callable[..., Rig]) -> None:
    """A stream whose pieces always end in mid-message goes on as long as its messages get complete."""
    rig = make_rig(message_timeout=5)
    peer = rig.connect()
    message = msgpack.packb([0, 1, "echo", [1]])
    peer.send(message[:4])
    for _ in range(10):
        peer.send(message[4:] + message[:4])
        settle()
        rig.jump(4)
        assert not peer.connection.is_closed
    assert len(peer.wait(10)) == 10


def test_replies_must_be_read_in_time(make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture) -> None:
    """A peer that reads a little keeps its connection, one that reads nothing loses it."""
    caplog.set_level("INFO")
    rig = make_rig(write_timeout=5)
    dead, slow = rig.connect(buffer_bytes=8192), rig.connect(buffer_bytes=8192)
    for peer in (dead, slow):
        peer.post("large", 3_000_000)
    settle()
    for _ in range(6):
        for _ in range(10):
            with contextlib.suppress(BlockingIOError):
                slow.sock.recv(8192)
            settle()
        assert slow.connection in rig.context.unsent
        rig.jump(2)
    assert dead.connection.is_closed
    assert not slow.connection.is_closed
    closed = [message for message in caplog.messages if message.startswith("Closing")]
    assert closed == ["Closing the connection of 127.0.0.1:4711: write_timeout passed"]
    assert rig.limit_counts() == {"unread_replies": 2, "write_timeout": 1}


def test_a_message_is_not_late_while_it_is_not_read(make_rig: Callable[..., Rig]) -> None:
    """It may have arrived whole: whether it has is seen when it is read again."""
    rig = make_rig(message_timeout=5, max_pending_calls=1)
    peer = rig.connect()
    calls = b"".join(msgpack.packb([0, msgid, method, [value]]) for msgid, method, value in CALLS)
    peer.send(calls[:-4])
    until(lambda: peer.connection.is_paused, "it is not read")
    peer.send(calls[-4:])
    rig.jump(20)
    assert not peer.connection.is_closed
    rig.service.open("one", "two")
    assert sorted(peer.wait(3)) == [[1, None, "one"], [2, None, "two"], [3, None, "three"]]


CALLS = [(1, "wait", "one"), (2, "wait", "two"), (3, "echo", "three")]


def test_half_a_message_is_late_once_it_is_read_again(make_rig: Callable[..., Rig]) -> None:
    """The pause is no way around the limit."""
    rig = make_rig(message_timeout=5, max_pending_calls=1)
    peer = rig.connect()
    calls = b"".join(msgpack.packb([0, msgid, method, [value]]) for msgid, method, value in CALLS)
    peer.send(calls[:-4])
    until(lambda: peer.connection.is_paused, "it is not read")
    rig.jump(20)
    rig.service.open("one", "two")
    peer.wait(2)
    rig.jump(6)
    assert peer.connection.is_closed


@pytest.mark.parametrize("options", [{"message_timeout": 5}, {"write_timeout": 5}, {"idle_timeout": 5}])
def test_a_worker_that_was_held_up_closes_nobody_for_it(make_rig: Callable[..., Rig], options: Any) -> None:
    """A method burned a minute of CPU: in that time nobody was read or written to; afterwards the limit holds."""
    rig = make_rig(**options)
    peer = rig.connect(buffer_bytes=8192)
    if "message_timeout" in options:
        peer.send(b"\x94\x00")
        until(lambda: rig.context.partial, "it has begun")
    elif "write_timeout" in options:
        peer.post("large", 3_000_000)
        until(lambda: rig.context.unsent, "it waits")
    rig.jump(1)
    rig.hold_up(60)
    rig.jump(3)
    assert not peer.connection.is_closed
    rig.jump(6)
    assert peer.connection.is_closed


def test_what_a_broken_long_message_took_is_noticed(rig: Rig) -> None:
    """It is no call, and its memory goes back to the kernel like that of one."""
    peer = rig.connect()
    peer.send(b"\x94\x00\x01\xa4echo\x92" + msgpack.packb(b"x" * 200_000))
    wait_read(peer)
    rig.engine.has_handled_large()
    peer.send(b"\xc1")
    peer.wait_end()
    assert rig.engine.has_handled_large()


# -- retiring


def test_the_end_is_said_and_the_peer_has_a_moment_to_read(rig: Rig) -> None:
    """The socket goes when the peer has closed its side, or after a second: what it sends meanwhile is not run."""
    polite, deaf = rig.connect(), rig.connect()
    for peer in (polite, deaf):
        peer.call("echo", 1)
    rig.connections.stop_reading()
    polite.post("echo", 2)
    for peer in (polite, deaf):
        peer.wait_end()
    assert rig.connections.open == {polite.connection, deaf.connection}
    polite.sock.close()
    settle()
    assert polite.connection.is_closed
    rig.jump(0.5)
    assert not deaf.connection.is_closed
    rig.jump(1)
    assert deaf.connection.is_closed
    assert rig.service.began == [1, 1]


def test_running_calls_are_answered_before_the_end(rig: Rig) -> None:
    """A stop of the whole cluster reads nothing more, but what runs is answered."""
    peer = rig.connect()
    for number in range(5):
        peer.post("wait", number)
    until(lambda: len(rig.service.began) == 5)
    rig.connections.stop_reading()
    peer.post("echo", "too late")
    rig.service.open(*range(5))
    assert len(peer.wait(5)) == 5
    peer.wait_end()
    assert len(peer.replies) == 5


def test_the_count_of_connections_is_told(rig: Rig) -> None:
    """With each that comes and goes: the scoreboard shows it."""
    counts: list[int] = []
    rig.context.on_count = counts.append
    one, two = rig.connect(), rig.connect()
    one.sock.close()
    two.sock.close()
    until(lambda: not rig.connections.open)
    assert counts == [1, 2, 1, 0]


@pytest.mark.parametrize(
    ("address", "name", "sent"),
    [
        (("10.0.0.1", 5), "10.0.0.1:5", ["10.0.0.1", 5]),
        (("::1", 5, 0, 0), "[::1]:5", ["::1", 5]),
        (["fe80::1%eth0", 5], "[fe80::1%eth0]:5", ["fe80::1%eth0", 5]),
        ("", "a Unix socket", []),
        ([], "a Unix socket", []),
        (b"\0x", "a Unix socket", []),
    ],
)
def test_a_connections_peer_is_named_in_log_lines(address: Any, name: str, sent: list[Any]) -> None:
    """As an address is written; a Unix socket has none. When the connection moves, the name is an address again."""
    assert peer_of(address) == name
    assert address_of(name) == sent


def test_thousands_of_connections_leave_nothing_behind(rig: Rig) -> None:
    """Descriptors and books are as before, whatever way each ended."""
    before = len(os.listdir("/proc/self/fd"))
    for round_number in range(20):
        peers = [rig.connect(tcp=number % 2 == 0) for number in range(20)]
        for number, peer in enumerate(peers):
            peer.post("echo", number)
            peer.send(b"\xc1" if number % 5 == 1 else b"\x94\x00")
        for number, peer in enumerate(peers):
            peer.reset() if number % 4 == 0 else peer.sock.close()
        until(lambda: not rig.connections.open, f"round {round_number}")
        rig.peers.clear()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not rig.context.partial
    assert not rig.context.unsent
    assert rig.engine.is_quiet
    assert rig.cells[Cell.ACTIVE_CALLS] == 0


# -- what is left


def _ends(peer: Peer) -> None:
    peer.shut()
    peer.wait_end()


def _is_reset(peer: Peer) -> None:
    peer.post("large", 3_000_000)
    peer.reset()


def _leaves_in_the_middle(peer: Peer) -> None:
    peer.send(b"\x94\x00\x07")
    until(lambda: peer.connection.inbox.partial)
    peer.reset()


def _sends(*pieces: bytes) -> Callable[[Peer], None]:
    def send(peer: Peer) -> None:
        for piece in pieces:
            peer.send(piece)
            until(lambda: peer.connection.inbox.partial or peer.connection.is_closed)
        peer.wait_end()

    return send


def _sends_and_ends(*pieces: bytes) -> Callable[[Peer], None]:
    def send(peer: Peer) -> None:
        for piece in pieces:
            peer.send(piece)
        peer.wait(2)
        peer.shut()
        peer.wait_end()

    return send


BEGINNING = b"\x94\x00\x07\xa4echo\x91"
BAD_BEGINNING = b"\x94\x00\xff\xa4echo\x91"  # its msgid is no msgid
WAYS_TO_END: dict[str, Callable[[Peer], None]] = {
    "it ends": _ends,
    "reset with unread replies": _is_reset,
    "in the middle of a message": _leaves_in_the_middle,
    "closed by us": lambda peer: peer.connection.close(),
    "no MessagePack": _sends(b"\xc1"),
    "no MessagePack, in pieces": _sends(BEGINNING, b"\xc1"),
    "no call": _sends(b"\x80"),
    "too deep": _sends(b"\x91" * 1000),
    "too deep, in pieces": _sends(b"\x91", b"\x91" * 1000),
    "too deep, and then": _sends(BEGINNING, b"\x91" * 1000, b"\xc1"),
    "too large": _sends(BEGINNING + b"\xdd\xff\xff\xff\xff"),
    "a bad timestamp": _sends(BAD_BEGINNING + b"\xd7\xff" + b"\xff" * 8),
    "a bad timestamp in a long message": _sends(
        BAD_BEGINNING[:-1] + b"\x92\xc6\0\1\0\0" + bytes(65_536), b"\xd4\xff\0"
    ),
    "a call with a bad timestamp": _sends_and_ends(BEGINNING + b"\xd7\xff" + b"\xff" * 8),
    "a long call with a bad timestamp": _sends_and_ends(
        BEGINNING[:-1] + b"\x92\xc6\0\1\0\0" + bytes(65_536), b"\xd4\xff\0"
    ),
}


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="what is left is not freed at once here")
@pytest.mark.parametrize("ends", WAYS_TO_END.values(), ids=WAYS_TO_END)
def test_nothing_is_left_of_a_connection(make_rig: Callable[..., Rig], ends: Callable[[Peer], None]) -> None:
    """Not even for the garbage collector, which looks rarely: it might hold all that a peer has sent."""
    gc.collect()
    others = _connections()
    rig = make_rig(max_message_size=1 << 20)
    peer = rig.connect(tcp=True)
    peer.call("echo", 1)
    gc.disable()
    try:
        ends(peer)
        until(lambda: not rig.connections.open, "it is closed")
        peer.connection = None
        until(lambda: _connections() == others, "nothing is left", 2)
    finally:
        gc.enable()
        rig.peers.clear()


def _connections() -> int:
    return sum(type(found) is Connection for found in gc.get_objects())
