"""The last word on a connection: who has asked hears what is still answered when nothing more is read."""

from __future__ import annotations

from typing import Any, Callable

import msgpack
import pytest

from rpccluster.protocol.closing import CLOSING, due_of

from ..rig import Peer, Rig, settle, until, wait_read
from .test_moving import move


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


def asked(rig: Rig) -> tuple[Peer, int]:
    """A peer that has asked, and the msgid of its wish."""
    peer = rig.connect()
    msgid = peer.post(CLOSING)
    assert peer.call("echo", "before") == "before"
    return peer, msgid


def word(peer: Peer, wish: int) -> Any:
    """What the reply to the wish says."""
    ((error, result),) = until(lambda: [reply[2:] for reply in peer.look() if reply[1] == wish], "the last word")
    return due_of(error, result)


def test_what_will_be_answered_is_named(rig: Rig) -> None:
    """At once, while calls run and wait: what is not named was not read, and does not run."""
    peer, wish = asked(rig)
    due = {peer.post("wait", number) for number in range(3)}
    until(lambda: len(rig.service.began) == 4)
    rig.connections.stop_reading()
    peer.post("echo", "too late")
    assert word(peer, wish) == due
    rig.service.open(*range(3))
    peer.wait_end()
    assert sorted(reply[1] for reply in peer.replies) == sorted({wish, wish + 1, *due})
    assert "too late" not in rig.service.began


def test_calls_that_wait_for_their_turn_are_named(make_rig: Callable[..., Rig]) -> None:
    """Those in the engine's queue, small ones and long ones that are still packed; no notification is."""
    rig = make_rig(max_greenlets=1)
    peer, wish = asked(rig)
    gate = peer.post("wait", "gate")
    until(lambda: len(rig.service.began) == 2)
    calls = [[0, 100, "echo", ["x" * 50_000]], [0, 101, "echo", ["small"]], [2, "echo", ["nobody waits"]]]
    peer.send(b"".join(map(msgpack.packb, calls)))
    due = {gate, 100, 101}
    wait_read(peer)
    rig.connections.stop_reading()
    assert word(peer, wish) == due
    rig.service.open("gate")
    peer.wait_end()
    assert {reply[1] for reply in peer.replies} >= due


def test_who_has_not_asked_hears_nothing(rig: Rig) -> None:
    """No reply that was not asked for: some clients close their connection at one."""
    peer = rig.connect()
    peer.call("echo", 1)
    rig.connections.stop_reading()
    peer.wait_end()
    assert len(peer.replies) == 1


def test_asked_twice(rig: Rig) -> None:
    """Each request has one reply: the second one at once, as to a method that is not there."""
    peer, wish = asked(rig)
    with pytest.raises(RuntimeError, match="method not found"):
        peer.call(CLOSING)
    rig.connections.stop_reading()
    assert word(peer, wish) == frozenset()


def test_the_wish_is_no_call(rig: Rig) -> None:
    """It is counted nowhere and holds up nothing: the connection is at rest."""
    peer, _ = asked(rig)
    until(lambda: peer.connection.is_at_rest)
    assert rig.engine.calls == 1


def test_the_wish_moves_along(make_rig: Callable[..., Rig]) -> None:
    """With the connection, any number of times, and as a plain message, which every version understands."""
    rigs = [make_rig() for _ in range(3)]
    peer, wish = asked(rigs[0])
    for donor, adopter in zip(rigs, rigs[1:]):
        move(peer, donor, adopter)
        until(lambda: peer.connection.is_at_rest)
    assert len(peer.look()) == 1
    rigs[2].connections.stop_reading()
    assert word(peer, wish) == frozenset()


def test_after_the_peers_end_of_file_it_is_answered_too(rig: Rig) -> None:
    """As every request."""
    peer, wish = asked(rig)
    peer.shut()
    peer.wait_end()
    assert word(peer, wish) == frozenset()


def test_what_has_come_by_then_is_answered(rig: Rig) -> None:
    """A peer that has not asked, or not been heard: what it sent before the end is read once more."""
    peer = rig.connect()
    peer.call("echo", 1)
    peer.sock.send(msgpack.packb([0, 2, "echo", [2]]))
    rig.connections.stop_reading()  # before the loop has seen it
    assert peer.wait(2) == [[1, None, 1], [2, None, 2]]
    peer.wait_end()


def test_one_that_has_just_come_may_speak_once(rig: Rig) -> None:
    """It is connected and its first bytes are on the way: they are answered, with the last word."""
    peer, silent = rig.connect(), rig.connect()
    rig.connections.stop_reading()
    settle()
    peer.sock.send(msgpack.packb([0, 1, CLOSING, []]) + msgpack.packb([0, 2, "echo", ["first"]]))
    assert word(peer, 1) == frozenset()
    peer.wait_end()
    assert sorted(reply[1] for reply in peer.replies) == [1, 2]
    assert not silent.connection.is_closed
    rig.jump(2)
    assert silent.connection.is_closed


def test_idle_timeout_says_it_too(make_rig: Callable[..., Rig]) -> None:
    """A call may be on its way when an idle connection is closed: who has asked hears that it was not read."""
    rig = make_rig(idle_timeout=5)
    peer, wish = asked(rig)
    other = rig.connect()
    other.call("echo", 1)
    rig.jump(6)
    peer.wait_end()
    assert word(peer, wish) == frozenset()
    assert len(other.replies) == 1
