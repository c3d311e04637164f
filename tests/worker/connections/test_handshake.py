"""The challenge before a connection is served: nothing runs before it."""

from __future__ import annotations

import _socket

import gevent
import pytest

from rpccluster.protocol.challenge import REFUSED, as_key, proving
from rpccluster.protocol.codec import pack_request

from ..rig import Peer, Rig, settle, tcp_pair, until

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


LINE = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
PING = pack_request(1, "rpc.ping", [])


def proxied(rig: Rig, address: tuple[str, int] = ("127.0.0.1", 9)) -> Peer:
    """A peer at an address for proxies."""
    theirs, ours = tcp_pair()
    raw = _socket.socket(fileno=theirs.detach())
    raw.setblocking(False)
    peer = Peer(ours, rig.connections.add(raw, address, True))
    rig.peers.append(peer)
    return peer


@pytest.fixture
def open_rig():
    """A worker without keys."""
    made = Rig()
    yield made
    made.close()


def test_a_proxied_peer_has_its_own_address(open_rig) -> None:
    """In one segment with the call, or byte by byte."""
    peer = proxied(open_rig)
    peer.send(LINE + pack_request(3, "echo", [1]))
    assert peer.wait(1) == [[3, None, 1]]
    assert peer.connection.outbox.peer == "192.0.2.7:4711"
    slow = proxied(open_rig)
    for byte in LINE:
        slow.send(bytes([byte]))
        settle()
    assert slow.call("echo", 2) == 2 and slow.connection.outbox.peer == "192.0.2.7:4711"


def test_a_proxied_peer_proves_its_key_behind_the_header(rig) -> None:
    """Both come before the first call."""
    peer = proxied(rig)
    peer.send(LINE)
    prove(peer)
    assert peer.call("echo", 1) == 1
    assert (peer.connection.outbox.peer, peer.connection.outbox.identity) == ("192.0.2.7:4711", "key:default")
    refused = proxied(rig)
    refused.send(LINE + pack_request(3, "echo", [1]))
    refused.wait_end()
    assert refused.replies == [[1, 3, REFUSED, None]]


def test_without_a_header_or_from_elsewhere_it_is_closed(open_rig) -> None:
    """proxy_from names who may tell such things; a change holds at once."""
    bare, stranger = proxied(open_rig), proxied(open_rig, ("192.0.2.9", 9))
    bare.send(pack_request(3, "echo", [1]))
    stranger.send(LINE + pack_request(3, "echo", [1]))
    bare.wait_end()
    stranger.wait_end()
    assert bare.replies == stranger.replies == [] and open_rig.service.began == []
    open_rig.options.set(proxy_from="192.0.2.0/24")
    known = proxied(open_rig, ("::ffff:192.0.2.9", 9))
    known.send(LINE)
    assert known.call("echo", 1) == 1
    proxied(open_rig).wait_end()


def test_a_health_check_may_ping_without_a_key_and_nothing_else(rig, caplog) -> None:
    """Its end is no failure and no log line."""
    checks = [proxied(rig) for _ in range(3)]
    for check in checks[:2]:
        check.send(LOCAL + PING)
        assert check.wait(1) == [[1, None, "pong"]]
    assert checks[0].connection.outbox.identity == ""
    checks[0].reset()
    checks[1].close()
    checks[2].send(LOCAL)
    settle()
    checks[2].close()
    until(lambda: not rig.connections.open, "all have ended")
    assert rig.limit_counts() == {} and not caplog.records
    other = proxied(rig)
    other.send(LOCAL + PING + pack_request(2, "echo", [1]))
    other.wait_end()
    assert other.replies == [[1, 1, None, "pong"], [1, 2, REFUSED, None]]


def test_a_health_check_that_stays_is_ended_without_a_word(rig, caplog) -> None:
    """At auth_timeout."""
    rig.options.set(auth_timeout=0.05)
    check = proxied(rig)
    check.send(LOCAL + PING)
    check.wait_end()
    assert rig.limit_counts() == {} and not caplog.records


def test_a_proxy_that_says_nothing_is_ended(open_rig) -> None:
    """At auth_timeout, without keys, too."""
    open_rig.options.set(auth_timeout=0.05)
    proxied(open_rig).wait_end()
    assert open_rig.limit_counts() == {"challenges_failed": 1}
