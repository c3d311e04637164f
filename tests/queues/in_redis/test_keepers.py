"""Several keepers on one Redis: they wake each other, take over from one that is lost, and run no batch twice."""

from __future__ import annotations

import time
from multiprocessing.connection import wait
from typing import Any

import pytest
from redis_servers import RedisServer

from rpccluster.errors import EngineFailed, LeaseLost, QueueFull
from rpccluster.queues.engine import (
    Ack,
    EndSession,
    Get,
    Item,
    Nack,
    Outcome,
    Pause,
    Put,
    Resume,
    Retry,
    Rules,
    Stats,
    Touch,
)
from rpccluster.queues.redis.engine import RedisEngine
from rpccluster.queues.redis.link import Away, Link

from .conftest import MakeKeeper

CONSUMER, PRODUCER = b"c" * 16, b"p" * 16


def is_woken(engine: RedisEngine, seconds: float = 0.0) -> bool:
    """Return whether the keeper has to run, within so many seconds."""
    number = engine.fileno()
    assert number is not None
    return bool(wait([number], seconds))


def woken(engine: RedisEngine) -> Outcome:
    """Wait until another keeper wakes this one. Returns what it then learns."""
    assert is_woken(engine, 10.0)
    outcome = engine.run([])
    assert not is_woken(engine)
    return outcome


def test_an_item_that_is_put_at_one_keeper_wakes_another_that_waits(server: RedisServer, keeper: MakeKeeper) -> None:
    """It is told once, gets the item, and the first one's gets do not see it."""
    one, two = keeper(server), keeper(server, "two")
    assert two.run([Get("jobs", CONSUMER)]).answers == [[]]
    one.run([Put("jobs", [b"x"])])
    assert woken(two).ready == {"jobs"}
    assert two.run([Get("jobs", CONSUMER)]).answers == [[Item(1, 1, b"x")]]
    assert one.run([Get("jobs", CONSUMER)]).answers == [[]]


def test_a_keeper_that_waits_for_nothing_is_not_woken(server: RedisServer, keeper: MakeKeeper) -> None:
    """Nor is one for what it does itself."""
    one, two = keeper(server), keeper(server, "two")
    one.run([Get("jobs", CONSUMER)])
    one.run([Put("jobs", [b"x"])])
    two.run([Get("jobs", CONSUMER)])
    one.run([Put("jobs", [b"y"])])
    assert not is_woken(one, 0.05) and not is_woken(two)


@pytest.mark.parametrize("how", ["delay", "lease", "session", "resume", "retry"])
def test_whatever_makes_an_item_ready_wakes(server: RedisServer, keeper: MakeKeeper, how: str) -> None:
    """Not only a put: also what time, a consumer's end, or a person does."""
    one, two = keeper(server, rules=Rules(lease=30.0)), keeper(server, "two", rules=Rules(lease=30.0))
    if how == "delay":
        one.run([Put("jobs", [b"x"], delay=30.0)])
    elif how == "resume":
        one.run([Pause("jobs"), Put("jobs", [b"x"])])
    else:
        one.run([Put("jobs", [b"x"]), Get("jobs", CONSUMER)])
    if how == "retry":
        one.configure({"jobs": Rules(max_attempts=1)}, None)
        one.run([EndSession(CONSUMER)])
    assert two.run([Get("jobs", PRODUCER)]).answers == [[]]
    if how in ("delay", "lease"):
        server.pass_time(30.1)
        one.run([])
    elif how == "retry":
        one.run([Retry("jobs")])
    else:
        one.run([EndSession(CONSUMER) if how == "session" else Resume("jobs")])
    assert woken(two).ready == {"jobs"}
    assert len(two.run([Get("jobs", PRODUCER)]).answers[0]) == 1


def test_room_wakes_the_keepers_whose_puts_found_none(server: RedisServer, keeper: MakeKeeper) -> None:
    """And those that wait until nothing is left."""
    rules = Rules(max_size=1)
    one, two = keeper(server, rules=rules), keeper(server, "two", rules=rules)
    one.run([Put("jobs", [b"x"]), Get("jobs", CONSUMER)])
    assert isinstance(two.run([Put("jobs", [b"y"])]).answers[0], QueueFull)
    one.run([Ack("jobs", [(1, 1)])])
    assert woken(two).room == {"jobs"}
    assert two.run([Put("jobs", [b"y"]), Stats("jobs")]).answers[0] == [2]
    one.run([Get("jobs", CONSUMER)])
    one.run([Ack("jobs", [(2, 1)])])
    assert woken(two).room == {"jobs"}
    assert two.run([Stats("jobs")]).answers[0]["leased"] == 0


def test_any_keeper_takes_the_ack_of_a_lease(server: RedisServer, keeper: MakeKeeper) -> None:
    """A consumer that went to another keeper is not lost for what it has."""
    one, two = keeper(server), keeper(server, "two")
    one.run([Put("jobs", [b"x"]), Get("jobs", CONSUMER)])
    assert two.run([Ack("jobs", [(1, 1)])]).answers == [True]
    assert one.run([EndSession(CONSUMER)]).answers == [0]


def test_a_session_ends_at_its_keeper_alone(server: RedisServer, keeper: MakeKeeper) -> None:
    """The same session at two keepers is two: each gives back what it has lent."""
    one, two = keeper(server), keeper(server, "two")
    one.run([Put("jobs", [b"x", b"y"]), Get("jobs", CONSUMER)])
    two.run([Get("jobs", CONSUMER)])
    assert one.run([EndSession(CONSUMER), Stats("jobs")]).answers[1]["leased"] == 1


def test_a_keeper_that_does_not_show_itself_loses_its_sessions(server: RedisServer, keeper: MakeKeeper) -> None:
    """Any other gives their items on, the attempt does not count; if it was only slow, its late acks are told."""
    rules = Rules(max_attempts=1)
    slow, other = keeper(server, rules=rules), keeper(server, "two", rules=rules)
    slow.run([Put("jobs", [b"x"]), Get("jobs", CONSUMER, seq=1)])
    for _ in range(4):
        server.pass_time(2.0)
        assert slow.run([]).answers == other.run([]).answers
    assert other.run([Get("jobs", PRODUCER)]).answers == [[]]
    for _ in range(2):
        server.pass_time(2.4)
        assert other.run([Get("jobs", PRODUCER)]).answers == [[]]
    server.pass_time(2.4)
    assert other.run([Get("jobs", PRODUCER)]).answers == [[Item(1, 2, b"x")]]
    lost, repeat = slow.run([Ack("jobs", [(1, 1)]), Get("jobs", CONSUMER, seq=1)]).answers
    assert isinstance(lost, LeaseLost)
    assert repeat == []
    slow.run([Put("jobs", [b"y"]), Get("jobs", CONSUMER)])
    server.pass_time(2.0)
    assert other.run([Stats("jobs")]).answers[0]["leased"] == 2


def given_back(keeper: RedisEngine) -> dict[str, int]:
    """The stats when nothing is left to be given back."""
    outcome = keeper.run([Stats("jobs")])
    while outcome.wake_in == 0:
        outcome = keeper.run([Stats("jobs")])
    return {name: number for name, number in outcome.answers[0].items() if name in ("ready", "leased", "dead")}


def test_what_a_session_had_that_has_ended_is_refused_at_once(server: RedisServer, keeper: MakeKeeper) -> None:
    """Though it is given back in pieces, none of which holds Redis up for long."""
    one, two = keeper(server, rules=Rules(max_attempts=3)), keeper(server, "two", rules=Rules(max_attempts=3))
    one.run([Put("jobs", [b"x"] * 5000), Get("jobs", CONSUMER, 5000)])
    held = [(id, 1) for id in range(1, 5001)]
    one.run([EndSession(CONSUMER)])
    answers = two.run([Ack("jobs", held), Nack("jobs", *held[0]), Touch("jobs", *held[0]), Stats("jobs")]).answers
    assert [type(answer) for answer in answers[:3]] == [LeaseLost] * 3
    assert str(answers[0]) == ", ".join(str(id) for id, _ in held)
    assert answers[3]["leased"] > 1000
    again = one.run([Get("jobs", CONSUMER)]).answers[0]
    assert one.run([EndSession(CONSUMER), Ack("jobs", [again[0][:2]])]).answers[0] == 1
    server.pass_time(60.0)
    assert given_back(two) == {"ready": 5000, "leased": 0, "dead": 0}
    attempts = [item.attempt for item in two.run([Get("jobs", CONSUMER, 5000)]).answers[0]]
    assert sorted(attempts) == [2] * 4999 + [3]
    with server.client as client:
        assert client.exists("rpccluster:ending") == 0
        assert list(client.scan_iter("rpccluster:ended_*")) == []


def test_a_lost_keeper_of_many_sessions_is_no_long_batch(server: RedisServer, keeper: MakeKeeper) -> None:
    """All of them have ended at once; should it show itself again, what it lends from then on stays lent."""
    rules = Rules(max_attempts=1, lease=3600.0)
    slow, other = keeper(server, rules=rules), keeper(server, "two", rules=rules)
    sessions = [b"session of %08d" % number for number in range(2500)]
    slow.run([Put("jobs", [b"x"] * 2500), *(Get("jobs", session, seq=1) for session in sessions)])
    stats = {"leased": 2500}
    while stats["leased"] == 2500:
        server.pass_time(2.0)
        stats = other.run([Stats("jobs")]).answers[0]
    assert stats["leased"] > 1000
    (lost,) = slow.run([Ack("jobs", [(id, 1) for id in range(1, 2501)])]).answers
    assert len(str(lost).split(", ")) == 2500
    taken = [item for items in slow.run([Get("jobs", each, seq=1) for each in sessions]).answers for item in items]
    assert len(taken) > 1000
    assert {item.attempt for item in taken} == {2}
    assert given_back(other) == {"ready": 2500 - len(taken), "leased": len(taken), "dead": 0}
    assert slow.run([Ack("jobs", [item[:2] for item in taken])]).answers == [True]


def test_no_keeper_is_lost_for_the_time_that_redis_was_away(server: RedisServer, keeper: MakeKeeper) -> None:
    """Nobody could show himself; from then on the grace counts anew."""
    one, two = keeper(server), keeper(server, "two")
    one.run([Put("jobs", [b"x"]), Get("jobs", CONSUMER)])
    server.pass_time(30.0)
    assert two.run([Stats("jobs")]).answers[0]["leased"] == 1
    assert one.run([Ack("jobs", [(1, 1)])]).answers == [True]


def test_a_keeper_that_starts_anew_ends_the_one_before(server: RedisServer, keeper: MakeKeeper) -> None:
    """It has the sessions; what the old one still sends changes nothing."""
    old = keeper(server)
    old.run([Put("jobs", [b"x"]), Get("jobs", CONSUMER)])
    new = RedisEngine(old._address, "one")
    new.configure({"jobs": Rules()}, None)
    assert new.open() == [CONSUMER]
    with pytest.raises(EngineFailed, match="another keeper"):
        old.run([Ack("jobs", [(1, 1)])])
    assert new.run([Stats("jobs")]).answers[0]["leased"] == 1
    new.close()


class Deaf(Link):
    """A link whose next replies are lost after the script has run."""

    lost = 0
    sent: tuple[bytes, ...] = ()

    def run(self, batch: bytes, until: float) -> bytes:
        """Run the script, and lose its reply while there are some to lose."""
        reply = super().run(batch, until)
        self.sent = (*self.sent, batch)
        if self.lost:
            self.lost -= 1
            self.close()
            raise Away("the reply was lost")
        return reply


def deaf(engine: RedisEngine) -> Deaf:
    """Make an engine's link one that can lose replies."""
    link: Any = engine._link
    link.__class__ = Deaf
    return link


def test_a_batch_whose_answer_was_lost_is_not_run_twice(server: RedisServer, keeper: MakeKeeper) -> None:
    """It is sent again and answered as it would have been: also without any number of a client."""
    one = keeper(server)
    deaf(one).lost = 1
    answers = one.run([Put("jobs", [b"a", b"b"]), Get("jobs", CONSUMER), Ack("jobs", [(1, 1)]), Stats("jobs")]).answers
    assert answers[:3] == [[1, 2], [], True]  # the value of what the same batch has acked is gone by then
    assert (answers[3]["ready"], answers[3]["leased"]) == (1, 0)
    deaf(one).lost = 1
    assert one.run([Get("jobs", CONSUMER)]).answers == [[Item(2, 1, b"b")]]


def test_a_batch_that_comes_late_changes_nothing(server: RedisServer, keeper: MakeKeeper) -> None:
    """One whose connection was given up may reach the server after the next one."""
    one = keeper(server)
    link = deaf(one)
    one.run([Put("jobs", [b"a"])])
    one.run([Put("jobs", [b"b"])])
    (first, last) = link.sent[-2:]
    until = time.monotonic() + 5
    assert b"late" in link.run(first, until)
    assert b"done" in link.run(last, until)
    assert one.run([Stats("jobs")]).answers[0]["ready"] == 2


def set_clock(server: RedisServer, milliseconds: int) -> None:
    """Have Redis's clock set forward: all that it has written before is so much earlier."""
    with server.client as client:
        for name in ("rpccluster:due", "rpccluster:keepers"):
            for member, _ in client.zrange(name, 0, -1, withscores=True):
                client.zincrby(name, -milliseconds, member)
        client.incrby("rpccluster:ran", -milliseconds)
        for name in ("one", "two"):
            client.hincrby(f"rpccluster:keeper:{name}", "differs", -milliseconds)


def test_a_jump_of_redis_clock_moves_no_lease(server: RedisServer, keeper: MakeKeeper) -> None:
    """Set forward or back by an hour: each keeper notices, and one takes it back."""
    rules = Rules(lease=10.0)
    one, two = keeper(server, rules=rules), keeper(server, "two", rules=rules)
    one.run([Put("jobs", [b"x", b"y"]), Get("jobs", CONSUMER)])
    two.run([Put("jobs", [b"later"], delay=20.0), Get("jobs", CONSUMER)])
    for jump in (3_600_000, -3_600_000, 30_000):
        set_clock(server, jump)
        for engine in (two, one, two):
            outcome = engine.run([Stats("jobs")])
            assert (outcome.answers[0]["leased"], outcome.answers[0]["delayed"]) == (2, 1)
            assert outcome.wake_in is not None and outcome.wake_in < 5
    for leased in (2, 2, 0):
        server.pass_time(4.0)
        assert [engine.run([Stats("jobs")]).answers[0]["leased"] for engine in (one, two)] == [leased] * 2
    server.pass_time(8.1)
    assert one.run([Stats("jobs")]).answers[0]["delayed"] == 0
