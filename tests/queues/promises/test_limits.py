"""Limits, expiry, purging, tokens, names and odd values of all kinds."""

from __future__ import annotations

import pytest

from rpccluster.errors import LeaseLost, NoSuchQueue, QueueFull, StaleToken
from rpccluster.queues.engine import Ack, Dead, EndSession, Get, List, Nack, Pause, Peek, Purge, Put, Rules, Stats

from .benches import CONSUMER, OTHER, Bench


def test_a_full_queue_refuses_until_something_has_left(bench: Bench) -> None:
    """Delayed and leased items count, the dead do not; `room` names the queue that something left."""
    bench.configure(max_size=3, max_attempts=1)
    bench.put(b"a")
    bench.put(b"b", delay=60.0)
    bench.put(b"c")
    (taken,) = bench.get()
    with pytest.raises(QueueFull, match="jobs"):
        bench.put(b"d")
    outcome = bench.outcome(Ack("jobs", [taken[:2]]))
    assert outcome.room == {"jobs"}
    with pytest.raises(QueueFull):
        bench.put(b"d", b"e")
    bench.put(b"d")
    (taken,) = bench.get()
    assert bench.outcome(Nack("jobs", taken.id, 1)).room == {"jobs"}
    bench.put(b"e")


def test_bytes_are_limited_too(bench: Bench) -> None:
    """Those of values, until they are acked."""
    bench.configure(max_bytes=100)
    bench.put(b"x" * 60)
    with pytest.raises(QueueFull):
        bench.put(b"x" * 41)
    bench.put(b"x" * 40)
    assert bench.run(Stats("jobs"))[0]["bytes"] == 100
    bench.get(0, ack=[bench.get()[0][:2]])
    assert bench.run(Stats("jobs"))[0]["bytes"] == 40


def test_what_never_has_room_is_refused_for_good(bench: Bench) -> None:
    """It is too large for the queue though that was empty; what only has to wait is not."""
    bench.configure(max_size=3, max_bytes=100)
    bench.put(b"x")
    for values, is_for_good in (
        ([b"y"] * 3, False),
        ([b"y"] * 4, True),
        ([b"y" * 100], False),
        ([b"y" * 60, b"y" * 41], True),
    ):
        [refused] = bench.run(Put("jobs", values))
        assert (type(refused), refused.is_for_good) == (QueueFull, is_for_good), values


def test_a_get_brings_no_more_bytes_than_it_may(bench: Bench) -> None:
    """What does not fit stays where it is, and costs no attempt, as do those behind it; a first item always fits."""
    first, second, third, _ = bench.put(b"x" * 60, b"y" * 60, b"z", b"")
    assert [item.id for item in bench.get(9, most_bytes=100)] == [first]
    assert [item.id for item in bench.get(9, most_bytes=-1)] == [second]
    assert [(item.id, item.attempt) for item in bench.get(2, most_bytes=100)] == [(third, 1), (third + 1, 1)]


def test_a_look_brings_no_more_bytes_than_it_may(bench: Bench) -> None:
    """Neither at what is ready or blocked, nor at the dead, whose errors count; a first item always fits."""
    ids = bench.put(b"x" * 60, group="a") + bench.put(b"y" * 60, group="a") + bench.put(b"z" * 3000)
    ids += bench.put(*[b"s"] * 300)
    for most, seen in {-1: 1, 100: 1, 120: 2, 3119: 2, 3120: 3, 1 << 20: 303}.items():
        assert [item.id for item in bench.run(Peek("jobs", 400, most))[0]] == ids[:seen]
    assert [item.id for item in bench.run(Peek("jobs", 2, 1 << 20))[0]] == ids[:2]
    bench.run(Purge("jobs"))
    ids = bench.put(b"x" * 60, b"y" * 60, b"z" * 3000, *[b"s"] * 300)
    for item in bench.get(303):
        bench.run(Nack("jobs", item.id, 1, error="\u00e9" * 20, dead=True))
    for most, seen in {-1: 1, 199: 1, 200: 2, 3239: 2, 3240: 3, 1 << 20: 303}.items():
        assert [(item.id, len(item.value)) for item in bench.run(Dead("jobs", 400, most))[0]] == [
            (id, len(value)) for id, value in zip(ids, [b"x" * 60, b"y" * 60, b"z" * 3000, *[b"s"] * 300])
        ][:seen]


def test_an_item_expires_unless_it_is_leased(bench: Bench) -> None:
    """By its own time or that of the queue; ready or delayed; one that is given back later is dropped then."""
    bench.configure(expires=10.0)
    held, _, late = *bench.put(b"held"), *bench.put(b"queue's"), *bench.put(b"own", expires=60.0)
    bench.put(b"delayed", delay=20.0)
    bench.get()
    bench.pass_time(10.1)
    outcome = bench.outcome(Peek("jobs", 10), Stats("jobs"))
    assert [item.value for item in outcome.answers[0]] == [b"own"]
    assert (outcome.answers[1]["ready"], outcome.answers[1]["delayed"], outcome.answers[1]["leased"]) == (1, 0, 1)
    assert outcome.room == {"jobs"}
    assert bench.run(Nack("jobs", held, 1)) == [True]
    assert [item.id for item in bench.get(10)] == [late]
    stats = bench.run(EndSession(CONSUMER), Stats("jobs"))[1]
    assert (stats["ready"], stats["leased"], stats["bytes"]) == (1, 0, 3)


def test_an_expired_item_of_a_group_lets_the_group_go_on(bench: Bench) -> None:
    """The next one of it comes."""
    bench.put(b"a", group="g", expires=5.0)
    bench.put(b"b", group="g")
    bench.pass_time(5.1)
    assert bench.values() == [b"b"]


def test_a_purge_removes_all_that_nobody_has(bench: Bench) -> None:
    """Ready, delayed, dead, of groups; what is leased is not lost for its holder."""
    bench.configure(max_attempts=1)
    first, second = bench.put(b"a", b"b", group="g")
    bench.put(b"dead")
    bench.put(b"later", delay=60.0)
    bench.get(), bench.get(1, OTHER)
    bench.run(Nack("jobs", second + 1, 1))
    assert [len(bench.run(Dead("jobs"))[0]), bench.run(Stats("jobs"))[0]["ready"]] == [1, 1]
    outcome = bench.outcome(Purge("jobs"), Stats("jobs"))
    assert outcome.answers[0] == 3
    assert outcome.answers[1] == {"ready": 0, "delayed": 0, "leased": 1, "dead": 0, "bytes": 1, "paused": False}
    assert outcome.room == {"jobs"}
    bench.put(b"c", group="g")
    assert bench.get(5) == []
    assert bench.run(Ack("jobs", [(first, 1)])) == [True]
    assert bench.values() == [b"c"]
    assert bench.run(Purge("jobs")) == [0]


def test_a_purge_of_many(bench: Bench) -> None:
    """All are counted, and what the same batch puts afterwards stays."""
    bench.put(*(b"%d" % n for n in range(5000)))
    bench.put(*(b"%d" % n for n in range(2000)), group="g")
    purged, _, stats = bench.run(Purge("jobs"), Put("jobs", [b"x"]), Stats("jobs"))
    assert purged == 7000
    assert (stats["ready"], stats["bytes"]) == (1, 1)
    assert bench.values() == [b"x"]


def test_an_older_token_is_refused_by_put_and_ack(bench: Bench) -> None:
    """The highest that the queue has seen counts, also after a restart; 64 bits of it."""
    old, new = 2**62, 2**62 + 1
    bench.put(b"a", b"b", token=old)
    bench.put(b"c", token=new)
    first, second = bench.get(2)
    bench.restart()
    with pytest.raises(StaleToken, match=str(new)):
        bench.put(b"d", token=old)
    refused, done, without = bench.run(
        Ack("jobs", [first[:2]], token=old), Ack("jobs", [first[:2]], token=new), Ack("jobs", [second[:2]])
    )
    assert isinstance(refused, StaleToken)
    assert (done, without) == (True, True)
    assert bench.values() == [b"c"]


def test_a_queue_without_rules_is_no_queue_unless_they_are_made(bench: Bench) -> None:
    """Every verb says so; with a default the first put makes it."""
    answers = bench.run(Put("typo", [b"x"]), Get("typo", CONSUMER), Stats("typo"), Ack("typo", [(1, 1)]), List())
    assert [type(answer) for answer in answers[:4]] == [NoSuchQueue] * 4
    assert answers[4] == ["jobs"]
    bench.configure(Rules(max_size=1))
    answers = bench.run(Stats("made"), Put("made", [b"x"]), Put("made", [b"x"]), List())
    assert answers[0]["ready"] == 0
    assert isinstance(answers[2], QueueFull)
    assert answers[3] == ["jobs", "made"]


def test_rules_count_from_the_next_batch_on(bench: Bench) -> None:
    """For the items that are there, too."""
    bench.put(b"a", b"b")
    bench.configure(max_size=2, max_attempts=1, lease=5.0)
    with pytest.raises(QueueFull):
        bench.put(b"c")
    bench.get()
    bench.pass_time(5.1)
    assert bench.run(Stats("jobs"))[0]["dead"] == 1


@pytest.mark.parametrize(
    "text", ["", "a:b", "ä \u20ac \U0001f600", "x" * 300, "\x00", "0", "%d{}*?[a]"], ids=lambda text: ascii(text)[:20]
)
def test_any_text_is_a_group_a_dedup_id_and_an_error(bench: Bench, text: str) -> None:
    """It comes back as it was, and is mixed up with no other."""
    bench.configure(max_attempts=1)
    (id,) = bench.put(b"1", group=text, dedup_id=text)
    bench.put(b"2", group=text, dedup_id=text + "'")
    assert bench.put(b"1", group=text, dedup_id=text) == [id]
    assert [item.value for item in bench.get(5)] == [b"1"]
    bench.run(Nack("jobs", id, 1, error=text))
    assert [(each.id, each.error) for each in bench.run(Dead("jobs"))[0]] == [(id, text)] or not text
    assert bench.values() == [b"2"]


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 65535, 65536, 3 << 20])
def test_any_bytes_are_a_value(bench: Bench, size: int) -> None:
    """Of any length, over a restart."""
    value = bytes(range(256)) * (size // 256) + bytes(size % 256)
    bench.put(value)
    bench.restart()
    assert bench.values() == [value]


def test_any_bytes_are_a_session(bench: Bench) -> None:
    """Two that begin alike are two."""
    sessions = [b"\x00" * 16, b"\x00" * 17, b":" * 16, b"\xff" * 64, b"1:x:" + b"y" * 16]
    bench.put(*([b"x"] * len(sessions)))
    for session in sessions:
        assert len(bench.get(1, session, seq=1)) == 1
    for session in sessions:
        assert bench.run(EndSession(session)) == [1]


@pytest.mark.parametrize("id", [0, -1, 2**53 + 1, 2**63, 2**64 - 1])
def test_an_ack_of_what_never_was_is_lost(bench: Bench, id: int) -> None:
    """Whatever number it has."""
    bench.put(b"x")
    bench.get()
    answers = bench.run(Ack("jobs", [(id, 1)]), Nack("jobs", id, 1), Ack("jobs", [(1, id)]))
    assert [type(answer) for answer in answers[:2]] == [LeaseLost] * 2
    assert bench.run(Pause("jobs"), Stats("jobs"))[1]["leased"] == 1
