"""The challenge before a connection is served: nothing runs before it."""

from __future__ import annotations

import gevent
import pytest

from rpccluster.protocol.challenge import REFUSED, as_key, proving
from rpccluster.protocol.codec import pack_request

from ..rig import Peer, Rig, settle, until

KEY = "default key 16 bytes"
KEYS = f"default {KEY.encode().hex()}"


@pytest.fixture
def rig():
    """A worker with a key."""
    made = Rig()
    made.options.set(authkeys=KEYS, auth_timeout=0.0)
    yield made
    made.close()


def prove(peer: Peer, key: str = KEY) -> None:
    """Pass the challenge."""
    exchange = proving(as_key(key))
    output = next(exchange)
    while True:
        peer.send(output)
        try:
            output = exchange.send(until(lambda: received(peer), "an answer of the challenge"))
        except StopIteration:
            return


def received(peer: Peer) -> bytes | None:
    """What has come, if anything has."""
    try:
        return peer.sock.recv(4096)
    except BlockingIOError:
        return None


def test_a_peer_that_has_passed_is_served_under_its_name(rig) -> None:
    """Its calls run, and the connection has its identity."""
    peer = rig.connect()
    prove(peer)
    assert peer.call("echo", 5) == 5
    assert peer.connection.outbox.identity == "key:default"
    assert rig.limit_counts() == {}


def test_nothing_runs_before_the_challenge(rig) -> None:
    """A call is answered with the one refusal, counted, and the connection ends."""
    peer = rig.connect()
    peer.send(pack_request(1, "echo", [1]) + pack_request(2, "echo", [2]))
    peer.wait_end()
    assert peer.replies == [[1, 1, REFUSED, None]]
    assert rig.service.began == []
    assert rig.limit_counts() == {"challenges_failed": 1}


def test_a_call_behind_the_last_step_runs(rig) -> None:
    """What came with the proof is not lost."""
    peer = rig.connect()
    exchange = proving(as_key(KEY))
    peer.send(next(exchange))
    second = exchange.send(until(lambda: received(peer), "a proof"))
    peer.send(second + pack_request(9, "echo", ["behind"]))
    assert peer.wait(2) == [[1, None, True], [9, None, "behind"]]


def test_a_peer_that_never_answers_is_ended(rig) -> None:
    """auth_timeout bounds the whole challenge."""
    rig.options.set(auth_timeout=0.05)
    silent, slow = rig.connect(), rig.connect()
    slow.send(next(proving(as_key(KEY)))[:20])
    silent.wait_end()
    slow.wait_end()
    assert rig.limit_counts() == {"challenges_failed": 2}


def test_a_peer_that_goes_leaves_nothing(rig) -> None:
    """In the middle of the challenge as before it."""
    first, second = rig.connect(), rig.connect()
    second.send(next(proving(as_key(KEY))))
    until(lambda: received(second), "a proof")
    first.close()
    second.close()
    until(lambda: not rig.connections.open, "both are gone")
    assert rig.limit_counts() == {}


def test_all_ends_when_the_cluster_stops(rig) -> None:
    """A peer that has not passed is not waited for."""
    rig.connect()
    rig.connections.stop_reading()
    assert not rig.connections.open


def test_a_changed_key_holds_for_new_peers_alone(rig) -> None:
    """Who has passed stays; the old key is refused from then on, and the new one passes."""
    before = rig.connect()
    prove(before)
    rig.options.set(authkeys=f"default {b'another key, of 24 bytes'.hex()}")
    assert before.call("echo", 1) == 1
    after = rig.connect()
    prove(after, "another key, of 24 bytes")
    assert after.call("echo", 2) == 2
    refused = rig.connect()
    with pytest.raises(Exception, match="refuses the challenge"):
        prove(refused)
    refused.wait_end()


def test_many_who_never_answer_hold_up_nobody(rig) -> None:
    """They hold no greenlet, and the calls of others go on."""
    silent = [rig.connect() for _ in range(64)]
    peer = rig.connect()
    prove(peer)
    assert [peer.call("echo", number) for number in range(10)] == list(range(10))
    assert len(rig.connections.open) == 65
    settle()
    gevent.sleep(0)
    assert not any(each.look() for each in silent)
