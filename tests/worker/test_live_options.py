"""Limits and timeouts are set while connections live: they hold for these, and for calls that begin afterwards."""

from __future__ import annotations

import os
import socket
from dataclasses import fields
from pathlib import Path
from typing import Any, Callable

import msgpack
import pytest

from rpccluster.config.sections.cluster import OPTIONS, Options
from rpccluster.config.sections.option import Effect
from rpccluster.ipc.scoreboard import Cell, Scoreboard
from rpccluster.log.outlet import Outlet
from rpccluster.master.changes.committing import live_values
from rpccluster.worker.accepting.connection_limit import tell_limit
from rpccluster.worker.current import Runner
from rpccluster.worker.live_options import LiveOptions, call_limit

from .rig import Peer, Rig, settle, until, wait_read


def begin_message(rig: Rig) -> Peer:
    """A peer of whose call half has come."""
    peer = rig.connect()
    peer.send(b"\x94\x00\x01")
    settle()
    assert peer.connection in rig.context.partial
    return peer


# -- the options themselves


def test_all_follow_a_change() -> None:
    """Each is told the names; what is set is read from the object."""
    options = LiveOptions.of(Options(max_greenlets=7))
    told: list[Any] = []
    options.follow(lambda options, changed: told.append((options.max_greenlets, changed)))
    options.follow(lambda options, changed: told.append(options.idle_timeout))
    options.set(max_greenlets=8, idle_timeout=2)
    assert told == [(8, {"max_greenlets", "idle_timeout"}), 2]


def test_what_the_master_says_is_taken_as_far_as_it_is_new() -> None:
    """It knows more options than a worker has; without a difference nobody is told."""
    options = LiveOptions.of(Options(log_level="info"))
    told: list[Any] = []
    options.follow(lambda options, changed: told.append(changed))
    values = live_values(Options(log_level="info", max_depth=7, max_memory=5))
    options.take({**values, "of_a_later_version": 3})
    options.take(values)
    assert told == [{"max_depth"}]
    assert options.max_depth == 7


def test_every_option_of_a_worker_that_may_change_says_so() -> None:
    """Its effect is at once, so that the master tells it; but for the numbers that a part of it is made with."""
    names = {each.name for each in fields(LiveOptions) if each.init} - {
        "authkeys",
        "access",
    }  # what authkey_file and [access] hold
    born_with = {name for name in names if OPTIONS[name].effect is not Effect.NOW}
    assert born_with <= {"threads", "thread_queue", "stall_warning"}


def test_each_worker_draws_its_limit_of_calls() -> None:
    """Within the jitter; none without max_requests."""
    options = LiveOptions.of(Options(max_requests=5, max_requests_jitter=3))
    assert {call_limit(options) for _ in range(200)} == {5, 6, 7, 8}
    options.set(max_requests=0)
    assert call_limit(options) == 0


def test_the_limit_of_calls_changes(make_rig: Callable[..., Rig]) -> None:
    """It counts from the worker's start."""
    rig = make_rig()
    peer = rig.connect()
    for number in range(4):
        peer.call("echo", number)
    rig.engine.set_call_limit(6)
    peer.call("echo", 5)
    assert rig.limit_reached == 0
    peer.call("echo", 6)
    assert rig.limit_reached == 1


def test_the_silence_after_which_the_kernel_asks_changes(make_rig: Callable[..., Rig]) -> None:
    """For connections of before; one of a Unix socket has none."""
    rig = make_rig()
    rig.connect()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        rig.connections.add(accepted, "tcp")
        rig.options.set(tcp_keepalive=7)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        rig.options.set(tcp_keepalive=0)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        client.close()


def test_what_cannot_be_set_changes_nothing() -> None:
    """A name that is none, or one of an option that a worker cannot change."""
    options = LiveOptions.of(Options())
    options.follow(lambda options, changed: pytest.fail("told"))
    for name in ("number_workers", "_followers", "set"):
        with pytest.raises(AttributeError, match=f"^cannot set {name} while a worker runs$"):
            options.set(max_greenlets=1, **{name: 2})
    assert options.max_greenlets == 1000


# -- deadlines


def test_message_timeout(make_rig: Callable[..., Rig]) -> None:
    """Counted from the message's first byte, whatever it was then."""
    rig = make_rig(message_timeout=0)
    peers = [begin_message(rig), begin_message(rig)]
    rig.jump(20)
    rig.options.set(message_timeout=30)
    rig.jump(9)
    peers[1].send(b"\xa4echo\x91\x01")
    assert peers[1].wait(1)
    rig.jump(2)
    assert peers[0].connection.is_closed
    other = begin_message(rig)
    rig.options.set(message_timeout=0)
    rig.jump(100)
    assert not other.connection.is_closed
    assert not peers[1].connection.is_closed


def test_write_timeout(make_rig: Callable[..., Rig]) -> None:
    """Counted from the last time that the peer has read something."""
    rig = make_rig(write_timeout=60)
    peers = [rig.connect(buffer_bytes=4096) for _ in range(2)]
    peers[0].post("large", 3_000_000)
    until(lambda: rig.context.unsent, "it does not read")
    rig.jump(20)
    rig.options.set(write_timeout=10)
    rig.jump(1)
    assert peers[0].connection.is_closed
    peers[1].post("large", 3_000_000)
    until(lambda: rig.context.unsent, "it does not read")
    rig.options.set(write_timeout=0)
    rig.jump(100)
    assert not peers[1].connection.is_closed


def test_idle_timeout(make_rig: Callable[..., Rig]) -> None:
    """Counted from the last message."""
    rig = make_rig(idle_timeout=0)
    peer, other = rig.connect(), rig.connect()
    rig.jump(1000)
    for each in (peer, other):
        each.call("echo", 1)
    rig.options.set(idle_timeout=10)
    rig.jump(9)
    assert not peer.connection.is_closed
    other.call("echo", 1)
    rig.jump(3)
    assert peer.connection.is_closed
    rig.options.set(idle_timeout=0)
    rig.jump(1000)
    assert not other.connection.is_closed


def test_call_timeout(make_rig: Callable[..., Rig]) -> None:
    """For calls that begin afterwards; none for a moment, then another."""
    rig = make_rig(call_timeout=0)
    peer = rig.connect()
    peer.post("wait", "first")
    settle()
    rig.options.set(call_timeout=0.05)
    peer.post("wait", "second")
    assert peer.wait(1) == [[2, "TimeoutError: the call took longer than 0.05 seconds", None]]
    rig.options.set(call_timeout=0.08)
    peer.post("wait", "third")
    assert peer.wait(2)[1] == [3, "TimeoutError: the call took longer than 0.08 seconds", None]
    rig.options.set(call_timeout=0)
    assert peer.call("sleep", 0.1) == 0.1
    rig.service.open("first")
    assert peer.wait(4)[3] == [1, None, "first"]


# -- sizes


def test_max_message_size_and_max_depth(make_rig: Callable[..., Rig]) -> None:
    """Of the next messages, and of the next replies."""
    rig = make_rig(max_message_size=1000, max_depth=5)
    peer = rig.connect()
    deep: Any = 1
    for _ in range(6):
        deep = [deep]
    for value in (b"x" * 2000, deep):
        with pytest.raises(RuntimeError, match=r"^ArgumentError: found a message "):
            peer.call("echo", value)
    with pytest.raises(RuntimeError, match=r"^ResultTooLarge: .* at most 1000 "):
        peer.call("large", 2000)
    rig.options.set(max_message_size=10_000, max_depth=20)
    for value in (b"x" * 2000, deep):
        assert peer.call("echo", value) == value
    assert len(peer.call("large", 2000)) == 2000
    rig.options.set(max_message_size=500, max_depth=3)
    for value in (b"x" * 600, deep):
        with pytest.raises(RuntimeError, match=r"^ArgumentError: found a message "):
            peer.call("echo", value)
    assert peer.call("echo", 1) == 1


def test_a_message_that_has_begun_keeps_its_bounds(make_rig: Callable[..., Rig]) -> None:
    """The next one of its connection has the new ones."""
    rig = make_rig(max_message_size=100_000)
    peer = rig.connect()
    message = msgpack.packb([0, 1, "echo", [b"x" * 50_000]])
    peer.send(message[:30_000])
    wait_read(peer)
    rig.options.set(max_message_size=1000)
    peer.send(message[30_000:] + msgpack.packb([0, 2, "echo", [b"x" * 5000]]))
    (_, error, _), (_, other, _) = peer.wait(2)
    assert error == "ResultTooLarge: found a reply of 50007 bytes, expected at most 1000 (max_message_size)"
    assert other == "ArgumentError: found a message of more than 1000 bytes (max_message_size)"


# -- numbers


def test_max_pending_calls(make_rig: Callable[..., Rig]) -> None:
    """A connection that is not read since it has too many is read on when it may have more."""
    rig = make_rig(max_pending_calls=2)
    peer = rig.connect()
    for name in range(10):
        peer.post("wait", name)
        settle()
    assert len(rig.service.began) == 3
    rig.options.set(max_pending_calls=100)
    settle()
    assert len(rig.service.began) == 10
    rig.options.set(max_pending_calls=4)
    for name in range(10, 20):
        peer.post("wait", name)
        settle()
    assert len(rig.service.began) == 11
    rig.service.open(*range(20))
    assert len(peer.wait(20)) == 20


def test_max_greenlets_may_be_raised(make_rig: Callable[..., Rig]) -> None:
    """Calls that wait begin at once; what was not read is read."""
    rig = make_rig(max_greenlets=1)
    peer, other = rig.connect(), rig.connect()
    for each in (peer, other):
        for name in range(5):
            each.post("wait", name)
            settle()
    assert len(rig.service.began) == 1
    assert rig.cells[Cell.GREENLETS_TAKEN_AT]
    rig.options.set(max_greenlets=11)
    settle()
    assert len(rig.service.began) == 10
    assert not rig.engine.is_full
    assert not rig.cells[Cell.GREENLETS_TAKEN_AT]
    rig.service.open(*range(5))
    assert len(peer.wait(5)) == len(other.wait(5)) == 5


def test_max_greenlets_may_be_lowered(make_rig: Callable[..., Rig]) -> None:
    """What runs goes on; the greenlets that are too many end, those with nothing to do at once."""
    rig = make_rig(max_greenlets=10)
    peer = rig.connect()
    for name in range(8):
        peer.post("wait", name)
    until(lambda: len(rig.service.began) == 8)
    runners: set[Runner] = rig.engine._runners.all
    ended = list(runners)
    rig.service.open(0, 1)
    peer.wait(2)
    rig.options.set(max_greenlets=3)
    settle()
    assert rig.engine.active_calls == len(runners) == 6
    peer.post("echo", "waits")
    settle()
    assert "waits" not in rig.service.began
    rig.service.open(*range(8))
    assert len(peer.wait(9)) == 9
    settle()
    assert len(runners) == 3
    assert sum(runner.dead for runner in ended) == len(ended) - 3
    rig.service.most_at_once, rig.service.began[:], rig.service.ended[:] = 0, [], []
    for name in range(10, 20):
        peer.post("wait", name)
    settle()
    assert len(rig.service.began) == 3
    rig.service.open(*range(10, 20))
    assert len(peer.wait(19)) == 19
    assert rig.service.most_at_once == 3
    assert rig.engine.active_calls == 0


# -- what a server does besides


def test_worker_connections() -> None:
    """The scoreboard tells it to whoever accepts; as many as there are descriptors for."""
    row = Scoreboard(1).row(0)
    options = LiveOptions.of(Options(worker_connections=5))
    options.follow(lambda options, changed: tell_limit(row, options))
    options.set(worker_connections=7)
    assert row[Cell.CONNECTION_LIMIT] == 7
    options.set(worker_connections=1 << 40)
    assert 7 < row[Cell.CONNECTION_LIMIT] < 1 << 40


def test_access_log(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """On, off and on again, for calls that begin then; a file of its own is there once it was given."""
    rig = make_rig()
    lines = tmp_path / "log"
    descriptor = os.open(lines, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    rig.logs.outlet = Outlet(descriptor, lambda lost: "")
    peer = rig.connect()
    for where, count in [("on", 1), ("off", 1), ("/a/path", 1), ("on", 2)]:
        rig.options.set(access_log=where)
        peer.call("echo", where)
        assert lines.read_bytes().count(b" 127.0.0.1:4711 echo ") == count
    rig.logs.access_outlet = rig.logs.outlet
    rig.options.set(access_log="/a/path")
    peer.call("echo", 1)
    assert lines.read_bytes().count(b" 127.0.0.1:4711 echo ") == 3
    os.close(descriptor)


def test_the_access_log_tells_the_call_that_is_named_inside(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """With the error that its caller gets."""
    rig = make_rig()
    lines = tmp_path / "log"
    descriptor = os.open(lines, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    rig.logs.outlet = Outlet(descriptor, lambda lost: "")
    rig.options.set(access_log="on")
    peer = rig.connect()
    peer.call("rpc.call", "echo", [1], {"timeout": 20})
    with pytest.raises(RuntimeError, match="TimeoutError"):
        peer.call("rpc.call", "sleep", [20], {"timeout": 0.02})
    peer.notify("rpc.cancel", peer.post("sleep", 20))
    peer.wait(3)
    until(lambda: lines.read_bytes().count(b"\n") == 3)
    ends = [(line.split()[5], line.split("ms ")[1]) for line in lines.read_text().splitlines()]
    assert ends == [
        ("echo", "ok"),
        ("sleep", "TimeoutError: the deadline of the call has passed"),
        ("sleep", "Cancelled: the caller has cancelled the call"),
    ]
    os.close(descriptor)
