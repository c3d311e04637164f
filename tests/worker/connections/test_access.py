"""Rules in both engines: what no rule allows is refused, also inside of rpc.call, and rates are kept."""

from __future__ import annotations

import json
import logging

import gevent
import pytest

from rpccluster.identity import identity_of
from rpccluster.worker.connections.connection import Connection

from ..rig import Gated, Peer, Rig, tcp_pair

FORBIDDEN = "Forbidden: no rule allows you to call {}"
LIMITED = "RateLimited: retry after 0.5"


class Shop(Gated):
    """A service with methods of each kind of name."""


def known(rig: Rig, *names: str) -> Peer:
    """A peer of this identity."""
    theirs, ours = tcp_pair()
    import _socket

    raw = _socket.socket(fileno=theirs.detach())
    raw.setblocking(False)
    connection: Connection = rig.connections._add(raw, "a peer", identity_of(*names))
    peer = Peer(ours, connection)
    rig.peers.append(peer)
    return peer


def ruled(rules: dict[str, str], **options: object) -> Rig:
    """A worker with rules."""
    rig = Rig(Shop(), **options)
    rig.options.set(access=json.dumps(rules))
    return rig


@pytest.fixture(params=[None, 20.0], ids=["plain", "bounded"], autouse=True)
def timeout(request, monkeypatch):
    """Calls have a deadline, or have none."""
    monkeypatch.setattr(Peer, "timeout", request.param)


@pytest.fixture
def rig():
    """A worker with a rule for some and a rule for all."""
    made = ruled({"key:web": "call echo, call f*", "uid:7": "call large", "*": "call sleep"})
    yield made
    made.close()


def refusal(peer: Peer, method: str, *params: object) -> str:
    """The error of a call."""
    with pytest.raises(RuntimeError) as raised:
        peer.call(method, *params)
    return str(raised.value)


def test_all_rules_of_all_that_is_known_of_a_peer_apply(rig) -> None:
    """Those of its key, of its user, and of everybody."""
    web, both, nobody = known(rig, "key:web"), known(rig, "key:web", "uid:7"), known(rig)
    assert web.call("echo", 1) == 1 and web.call("sleep", 0) == 0
    assert refusal(web, "fail") == "RuntimeError: boom"
    assert refusal(web, "large", 1) == FORBIDDEN.format("large")
    assert both.call("large", 1) == b"x" and both.call("echo", 2) == 2
    assert nobody.call("sleep", 0) == 0
    assert refusal(nobody, "echo", 1) == FORBIDDEN.format("echo")
    assert rig.service.began == [1, 1, 2]


def test_what_begins_with_rpc_is_always_allowed(rig) -> None:
    """rpc.ping and rpc.discover, which tells what this caller may call."""
    nobody, web = known(rig), known(rig, "key:web")
    assert nobody.call("rpc.ping") == "pong"
    own = [name for name in nobody.call("rpc.discover") if not name.startswith("rpc.")]
    assert own == ["sleep"]
    assert {"rpc.call", "rpc.cancel"} <= set(nobody.call("rpc.discover"))
    assert {"echo", "fail", "sleep"} == {name for name in web.call("rpc.discover") if not name.startswith("rpc.")}


def test_rules_see_the_method_that_is_named_inside_rpc_call(rig) -> None:
    """It is no way around them."""
    web = known(rig, "key:web")
    assert web.call("rpc.call", "echo", [5], {}) == 5
    assert refusal(web, "rpc.call", "large", [1], {}) == FORBIDDEN.format("large")
    assert refusal(web, "rpc.call", "large", [1], {"timeout": 5}) == FORBIDDEN.format("large")


def test_other_forms_of_a_call_are_no_way_around(rig) -> None:
    """A notification, a name of type bin, a call that the Python decoder reads."""
    import msgpack

    web = known(rig, "key:web")
    web.notify("large", 1)
    web.send(msgpack.packb([0, 8, b"large", [1]]))
    web.send(msgpack.packb([0, 9, "large", [msgpack.ExtType(5, b"x")]]))
    assert web.wait(2) == [[8, FORBIDDEN.format("large"), None], [9, FORBIDDEN.format("large"), None]]
    assert rig.service.began == []


def test_refusals_are_counted_and_told_in_few_lines(rig, caplog) -> None:
    """One line for many."""
    caplog.set_level(logging.INFO)
    nobody = known(rig)
    for _ in range(20):
        refusal(nobody, "echo", 1)
    assert rig.limit_counts() == {"forbidden": 20}
    assert "Traceback" not in caplog.text


def test_rules_change_for_connections_that_are_there(rig) -> None:
    """And go, and come back."""
    web = known(rig, "key:web")
    rig.options.set(access=json.dumps({"key:web": "call large"}))
    assert refusal(web, "echo", 1) == FORBIDDEN.format("echo")
    assert web.call("large", 2) == b"xx"
    rig.options.set(access="")
    assert web.call("echo", 3) == 3
    rig.options.set(access="{}")
    assert refusal(web, "echo", 4) == FORBIDDEN.format("echo")
    assert web.call("rpc.ping") == "pong"


def test_a_changed_time_limit_leaves_the_rules(rig) -> None:
    """The methods are wrapped anew, what is refused stays so."""
    web = known(rig, "key:web")
    rig.options.set(call_timeout=5.0)
    assert web.call("echo", 1) == 1
    assert refusal(web, "large", 1) == FORBIDDEN.format("large")


def test_rules_that_match_nothing_are_told(rig) -> None:
    """Those of queues are not this worker's."""
    rig.options.set(access=json.dumps({"key:web": "call ech, call e*", "*": "call queue.*, call rpc.ping"}))
    assert rig.access.unmatched() == ["key:web = call ech", "* = call rpc.ping"]


def passed(peer: Peer, number: int, method: str = "echo") -> int:
    """How many of so many calls at once are let through."""
    for place in range(number):
        peer.post(method, place)
    replies = peer.wait(len(peer.replies) + number)[-number:]
    assert {error for _, error, _ in replies} <= {None, LIMITED}
    return sum(error is None for _, error, _ in replies)


def test_a_rate_is_shared_by_all_connections() -> None:
    """What has gathered may come at once, then nothing; who is not named by the rule is not concerned."""
    rig = ruled({"key:web": "call echo 100/s", "uid:7": "call echo"})
    try:
        first, second, other = known(rig, "key:web"), known(rig, "key:web"), known(rig, "uid:7")
        found = passed(first, 100) + passed(second, 100)
        assert found == 100
        assert passed(other, 200) == 200
        assert rig.limit_counts() == {"rate_limited": 200 - found}
    finally:
        rig.close()


def test_all_rates_that_match_apply() -> None:
    """The smallest decides, and what one refuses is not taken from the others."""
    rig = ruled({"key:web": "call echo 1000/s, call e* 20/s"})
    try:
        web = known(rig, "key:web")
        assert passed(web, 100) == 20
        wide = next(bucket for bucket in rig.access._buckets.values() if bucket.most > 100)
        assert wide.tokens == 1000 - 20
    finally:
        rig.close()


def test_a_call_that_is_held_back_takes_once() -> None:
    """It takes when it begins."""
    rig = ruled({"*": "call * 1000/s"}, max_greenlets=1)
    try:
        peer = known(rig)
        gevent.sleep(0.1)
        peer.post("wait", "a")
        for _ in range(5):
            peer.post("echo", 1)
        gevent.sleep(0.05)
        rig.service.open("a")
        peer.wait(6)
        (bucket,) = rig.access._buckets.values()
        assert round(bucket.used) == 6
    finally:
        rig.close()
