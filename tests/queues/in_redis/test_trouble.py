"""A Redis that is away, silent, full, set otherwise than asked, or no Redis: what calls are answered, what stays."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from redis_servers import RedisServer, redis_server

from rpccluster.errors import QueueDown, StartError
from rpccluster.queues.engine import Ack, EndSession, Get, Item, List, Nack, Outcome, Peek, Put, Rules, Stats, Touch
from rpccluster.queues.redis.address import RedisAddress, keeper_name
from rpccluster.queues.redis.engine import RedisEngine

from .conftest import MakeKeeper

CONSUMER, PRODUCER = b"c" * 16, b"p" * 16


def back(engine: RedisEngine) -> Outcome:
    """Wait until Redis is there again. Returns the first outcome."""
    deadline = time.monotonic() + 20
    while True:
        outcome = engine.run([Stats("jobs")])
        if not isinstance(outcome.answers[0], QueueDown):
            return outcome
        assert time.monotonic() < deadline, outcome
        time.sleep(min(0.1, outcome.wake_in or 0))


def test_redis_gone_and_back(own_server: RedisServer, keeper: MakeKeeper) -> None:
    """Each call is answered QueueDown, with a reason; then all is there, leases and numbers too, and is looked at."""
    engine = keeper(own_server)
    engine.run([Put("jobs", [b"a", b"b"], PRODUCER, 1), Get("jobs", CONSUMER, seq=1)])
    own_server.kill()
    outcome = engine.run([Put("jobs", [b"c"], PRODUCER, 2), Get("jobs", CONSUMER), Stats("jobs"), List()])
    assert [type(answer) for answer in outcome.answers] == [QueueDown] * 4
    assert str(own_server.port) in str(outcome.answers[0])
    assert outcome.wake_in is not None and outcome.wake_in <= 1
    assert (outcome.ready, outcome.room) == ({"jobs"}, {"jobs"})  # so those that wait are told, too
    assert engine.fileno() is None
    (told,) = engine.warnings()
    assert "cannot reach Redis" in told
    engine.run([])
    assert engine.warnings() == []
    own_server.start()
    outcome = back(engine)
    (told,) = engine.warnings()
    assert "there again" in told
    assert (outcome.ready, outcome.room) == ({"jobs"}, {"jobs"})
    assert engine.fileno() is not None
    answers = engine.run(
        [
            Put("jobs", [b"a", b"b"], PRODUCER, 1),
            Get("jobs", CONSUMER, seq=1),
            Put("jobs", [b"c"], PRODUCER, 2),
            Ack("jobs", [(1, 1)]),
            Peek("jobs", 5),
        ]
    ).answers
    assert answers[0] == [1, 2] and answers[2:4] == [[3], True]
    assert [item.value for item in answers[4]] == [b"b", b"c"]


def test_while_redis_is_away_the_second_answer_comes_at_once(own_server: RedisServer, keeper: MakeKeeper) -> None:
    """It is looked for twice a second, and not by every call."""
    engine = keeper(own_server)
    own_server.pause()
    first = time.monotonic()
    assert isinstance(engine.run([Stats("jobs")]).answers[0], QueueDown)
    engine.run([Stats("jobs")])
    waited = time.monotonic() - first
    taken = []
    for _ in range(100):
        asked = time.monotonic()
        assert isinstance(engine.run([Stats("jobs")]).answers[0], QueueDown)
        taken.append(time.monotonic() - asked)
    assert sorted(taken)[90] < waited / 4
    own_server.resume()
    back(engine)


def test_a_batch_that_redis_has_read_before_it_stood_still_counts_once(
    own_server: RedisServer, keeper: MakeKeeper
) -> None:
    """It runs when Redis goes on, though it was answered QueueDown; the client's number makes the repeat harmless."""
    engine = keeper(own_server)
    engine.run([Put("jobs", [b"a"], PRODUCER, 1)])
    own_server.pause()
    assert isinstance(engine.run([Put("jobs", [b"b"], PRODUCER, 2)]).answers[0], QueueDown)
    own_server.resume()
    back(engine)
    assert engine.run([Put("jobs", [b"b"], PRODUCER, 2), Stats("jobs")]).answers[0] == [2]
    assert engine.run([Stats("jobs")]).answers[0]["ready"] == 2


def test_what_a_get_took_whose_answer_nobody_got_is_given_back(own_server: RedisServer, keeper: MakeKeeper) -> None:
    """The attempt does not count; a get with a number keeps its items, for its repeat. A session that has ended has."""
    engine = keeper(own_server, rules=Rules(max_attempts=1))
    engine.run([Put("jobs", [b"a", b"b", b"c"]), Get("jobs", PRODUCER)])
    own_server.pause()
    answers = engine.run([Get("jobs", CONSUMER), Get("jobs", CONSUMER, seq=1), EndSession(PRODUCER)]).answers
    assert [type(answer) for answer in answers] == [QueueDown] * 3
    own_server.resume()
    back(engine)
    assert engine.run([Stats("jobs"), Get("jobs", CONSUMER, seq=1)]).answers == [
        {"ready": 1, "delayed": 0, "leased": 1, "dead": 1, "bytes": 2, "paused": False},
        [Item(3, 1, b"c")],
    ]
    assert engine.run([Get("jobs", CONSUMER)]).answers == [[Item(2, 2, b"b")]]


def test_out_of_memory_only_puts_are_refused(own_server: RedisServer, keeper: MakeKeeper) -> None:
    """The others free memory; when there is some, puts go on. The reason says what to do."""
    engine = keeper(own_server)
    engine.run([Put("jobs", [b"x" * 100_000] * 20, PRODUCER, 1)])
    with own_server.client as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 500_000)
    put, got, peeked = engine.run(
        [Put("jobs", [b"y"], PRODUCER, 2), Get("jobs", CONSUMER, 20), Peek("jobs", 1)]
    ).answers
    assert isinstance(put, QueueDown) and "maxmemory" in str(put)
    assert (len(got), peeked) == (20, [])
    acks = [Ack("jobs", [item[:2]]) for item in got[2:]]
    assert (
        engine.run([Touch("jobs", 1, 1), Nack("jobs", 1, 1), Nack("jobs", 2, 1, delay=9), *acks]).answers == [True] * 21
    )
    put, stats = engine.run([Put("jobs", [b"y"], PRODUCER, 2), Stats("jobs")]).answers
    if isinstance(put, QueueDown):  # what was freed in this very run counts from the next on
        (put,) = engine.run([Put("jobs", [b"y"], PRODUCER, 2)]).answers
    assert put == [21]
    assert stats["delayed"] == 1


def test_a_redis_that_does_not_write_is_down(own_server: RedisServer, keeper: MakeKeeper) -> None:
    """A replica, or a master without its replicas, says so, and nothing has changed."""
    engine = keeper(own_server)
    with own_server.client as client:
        client.config_set("min-replicas-to-write", 1)
        (answer,) = engine.run([Put("jobs", [b"x"])]).answers
        assert isinstance(answer, QueueDown) and "NOREPLICAS" in str(answer)
        client.config_set("min-replicas-to-write", 0)
        client.replicaof("127.0.0.1", "1")
        answer = engine.run([Put("jobs", [b"x"])]).answers[0]
        assert isinstance(answer, QueueDown)
        client.replicaof("NO", "ONE")
    back(engine)
    assert engine.run([Put("jobs", [b"x"])]).answers == [[1]]


def test_a_redis_that_has_lost_everything_is_begun_with_anew(server: RedisServer, keeper: MakeKeeper) -> None:
    """As after a failover to a replica that had nothing: the keeper goes on without a start."""
    engine = keeper(server)
    engine.run([Put("jobs", [b"x"] * 3), Get("jobs", CONSUMER)])
    with server.client as client:
        client.flushall()
        client.script_flush()
    answers = engine.run([Stats("jobs"), Put("jobs", [b"y"]), Get("jobs", CONSUMER)]).answers
    assert answers[0]["ready"] == 0
    assert answers[1:] == [[1], [Item(1, 1, b"y")]]


def test_a_keeper_opens_while_redis_is_away(own_server: RedisServer) -> None:
    """It is ready, its calls are answered QueueDown; when Redis comes, items of sessions from before are given on."""
    own_server.kill()
    engine = RedisEngine(RedisAddress.parse(own_server.address), "one")
    engine.configure({"jobs": Rules(max_attempts=1)}, None)
    assert engine.open() == []
    assert "cannot reach Redis" in engine.warnings()[0]
    assert isinstance(engine.run([Stats("jobs")]).answers[0], QueueDown)
    own_server.start()
    back(engine)
    engine.run([Put("jobs", [b"x"]), Get("jobs", CONSUMER)])
    engine.close()
    own_server.kill()
    engine = RedisEngine(RedisAddress.parse(own_server.address), "one")
    engine.configure({"jobs": Rules(max_attempts=1)}, None)
    assert engine.open() == []
    own_server.start()
    assert back(engine).answers[0]["ready"] == 1
    assert engine.run([Get("jobs", CONSUMER)]).answers == [[Item(1, 2, b"x")]]
    engine.close()


@pytest.mark.parametrize(
    ("settings", "durable", "expected"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, "always", []),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "always", ["appendfsync everysec"]),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "second", []),
        ({"appendonly": "yes", "appendfsync": "no"}, "second", ["appendfsync no"]),
        ({"appendonly": "no"}, "second", ["appendonly no"]),
        ({"appendonly": "no"}, "os", []),
        ({"maxmemory": "900mb", "maxmemory-policy": "allkeys-lru"}, "os", ["allkeys-lru"]),
        ({"maxmemory": "900mb"}, "os", []),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else None,
)
def test_the_keeper_warns_where_more_is_asked_for_than_redis_does(
    server: RedisServer, keeper: MakeKeeper, settings: dict[str, str], durable: str, expected: list[str]
) -> None:
    """What a crash of Redis could lose, and what it could throw away, each told once."""
    asked = {
        "appendonly": "no",
        "appendfsync": "everysec",
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        **settings,
    }
    with server.client as client:
        before = {name: client.config_get(name)[name] for name in asked}
        for name, value in asked.items():
            client.config_set(name, value)
        try:
            found = keeper(server, durable=durable).warnings()
        finally:
            for name, value in before.items():
                client.config_set(name, value)
    assert len(found) == len(expected)
    assert all(part in text for part, text in zip(expected, found))


def test_a_redis_that_does_not_tell_its_settings(server: RedisServer, keeper: MakeKeeper) -> None:
    """A user who may not ask for them gets the queues, and a warning."""
    with server.client as client:
        client.acl_setuser("default", enabled=True, nopass=True, keys="*", channels="*", commands=["+@all", "-config"])
        try:
            engine = keeper(server)
            assert "does not tell" in engine.warnings()[0]
            assert engine.run([Put("jobs", [b"x"])]).answers == [[1]]
        finally:
            client.acl_setuser("default", enabled=True, nopass=True, keys="*", channels="*", commands=["+@all"])


@pytest.mark.parametrize("password", ["", "wrong", "secret"])
def test_a_password(tmp_path: Path, keeper: MakeKeeper, password: str) -> None:
    """The right one serves; else the reason says what Redis says, and never the password."""
    with redis_server(tmp_path / "redis", requirepass="secret") as server:
        engine = keeper(server, password=password)
        (answer,) = engine.run([Stats("jobs")]).answers
        if password == "secret":
            assert answer["ready"] == 0
        else:
            assert isinstance(answer, QueueDown)
            assert "Authentication required" in str(answer) or "invalid username-password" in str(answer)
            assert "secret" not in str(answer) and "wrong " not in str(answer)


def test_queues_of_a_newer_version_are_left_alone(server: RedisServer, keeper: MakeKeeper) -> None:
    """The keeper does not start, and says why."""
    with server.client as client:
        client.set("rpccluster:version", "2")
        with pytest.raises(StartError, match="version 2, expected 1"):
            keeper(server)
        assert client.keys() == [b"rpccluster:version"]


def test_keys_that_are_something_else(server: RedisServer, keeper: MakeKeeper) -> None:
    """Another program's key of the same name is told, and hurts no other queue."""
    engine = keeper(server)
    engine.configure({"jobs": Rules(), "other": Rules()}, None)
    with server.client as client:
        client.set("rpccluster:queue:jobs", "mine")
    (answer,) = engine.run([Put("jobs", [b"x"])]).answers
    assert isinstance(answer, QueueDown) and "WRONGTYPE" in str(answer)
    back_again = engine.run([Put("other", [b"x"])]).answers
    assert back_again == [[1]]


@pytest.mark.parametrize(
    "speech", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR no\r\n" * 50, b"$99999999999\r\n", b"+OK"]
)
def test_something_that_is_no_redis(keeper: MakeKeeper, speech: bytes) -> None:
    """A server that says anything else, or nothing, is told as a Redis that is away."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            peer, _ = listener.accept()
            held.append(peer)
            peer.sendall(speech)

    held: list[Any] = []
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    engine = RedisEngine(RedisAddress("127.0.0.1", listener.getsockname()[1]), "one")
    engine.configure({"jobs": Rules()}, None)
    try:
        assert engine.open() == []
        assert isinstance(engine.run([Stats("jobs")]).answers[0], QueueDown)
    finally:
        done.set()
        engine.close()
        with socket.create_connection(listener.getsockname()):
            thread.join(10)
        listener.close()
        for peer in held:
            peer.close()


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("redis://box:6380/2", RedisAddress("box", 6380, 2), "redis://box:6380/2"),
        ("redis://box", RedisAddress("box"), "redis://box:6379/0"),
        ("redis://box/3", RedisAddress("box", 6379, 3), "redis://box:6379/3"),
        ("redis://[::1]:1/", RedisAddress("::1", 1), "redis://[::1]:1/0"),
    ],
)
def test_addresses(text: str, address: RedisAddress, written: str) -> None:
    """With and without a port and a database."""
    assert RedisAddress.parse(text) == address
    assert str(address) == written


@pytest.mark.parametrize(
    "text", ["", "redis:", "redis://", "redis://a:b", "redis://a:0", "redis://a:70000", "redis://a/b", "rediss://a"]
)
def test_what_is_no_address(text: str) -> None:
    """It is refused."""
    with pytest.raises(ValueError, match="expected redis://HOST:PORT/DB"):
        RedisAddress.parse(text)


def test_an_address_with_a_password_is_refused_without_telling_it() -> None:
    """It would stand in logs and titles."""
    with pytest.raises(ValueError, match="expected") as caught:
        RedisAddress.parse("redis://:geheim@box:6379/0")
    assert "geheim" not in str(caught.value)


def test_a_keeper_has_its_name_from_where_it_is() -> None:
    """Over restarts the same; another path is another keeper."""
    assert keeper_name("/run/one.sock") == keeper_name("/run/../run/one.sock") != keeper_name("/run/two.sock")
