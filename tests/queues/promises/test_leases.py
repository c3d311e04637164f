"""Leases and attempts: when they end, whose acks count, what becomes of an item after its last attempt."""

from __future__ import annotations

import pytest

from rpccluster.errors import LeaseLost
from rpccluster.queues.engine import Ack, Dead, EndSession, Get, Nack, Peek, Retry, Stats, Touch

from .benches import CONSUMER, OTHER, Bench


def test_a_lease_ends_at_its_time_and_the_late_ack_is_told(bench: Bench) -> None:
    """The item goes to the next, with the next attempt; `wake_in` says when that is due."""
    bench.configure(lease=10.0)
    (id,) = bench.put(b"x")
    assert bench.get()[0].attempt == 1
    assert 0 < (bench.outcome().wake_in or 0) <= 10.0
    bench.pass_time(9.0)
    assert bench.get(1, OTHER) == []
    bench.pass_time(1.1)
    assert bench.outcome().ready == {"jobs"}
    assert bench.get(1, OTHER) == [(id, 2, b"x")]
    answers = bench.run(Ack("jobs", [(id, 1)]), Nack("jobs", id, 1), Touch("jobs", id, 1), Ack("jobs", [(id, 2)]))
    assert [type(answer) for answer in answers] == [LeaseLost, LeaseLost, LeaseLost, bool]
    assert str(id) in str(answers[0])


def test_a_touch_begins_the_lease_anew(bench: Bench) -> None:
    """It ends its time after the last touch."""
    bench.configure(lease=10.0)
    (id,) = bench.put(b"x")
    bench.get()
    for _ in range(3):
        bench.pass_time(8.0)
        assert bench.run(Touch("jobs", id, 1)) == [True]
    bench.pass_time(10.1)
    assert bench.get(1, OTHER) == [(id, 2, b"x")]


def test_ten_thousand_leases_of_one_session_all_end_at_their_time(bench: Bench) -> None:
    """None is forgotten, whatever an engine does at a time."""
    bench.configure(lease=10.0, max_attempts=3)
    bench.put(*([b"x"] * 10_000))
    taken = 0
    while taken < 10_000:
        taken += len(bench.get(1000))
    bench.pass_time(10.1)
    outcome = bench.outcome()
    while outcome.wake_in == 0:
        outcome = bench.outcome()
    stats = bench.run(Stats("jobs"))[0]
    assert (stats["ready"], stats["leased"]) == (10_000, 0)


def test_the_end_of_a_session_gives_its_items_back_wherever_they_are(bench: Bench) -> None:
    """Those of others stay; the attempt counts."""
    bench.put(b"a", b"b", b"c")
    bench.get(2)
    bench.get(1, OTHER)
    outcome = bench.outcome(EndSession(CONSUMER))
    assert (outcome.answers, outcome.ready) == ([2], {"jobs"})
    assert [(item.attempt, item.value) for item in bench.get(5, OTHER)] == [(2, b"a"), (2, b"b")]
    assert bench.run(EndSession(CONSUMER)) == [0]


def test_the_end_of_a_session_of_many_items_is_no_long_batch(bench: Bench) -> None:
    """It has ended, but its items are given back in pieces; whoever asks meanwhile is served, the session, too."""
    many = 5000
    bench.configure(max_attempts=2)
    bench.put(*[b"x"] * many)
    assert len(bench.get(many, seq=7)) == many
    outcome = bench.outcome(EndSession(CONSUMER), Stats("jobs"))
    assert outcome.answers[0] == many
    assert 0 < outcome.answers[1]["leased"] < many
    assert outcome.wake_in == 0
    again = bench.get(2, seq=7)
    assert [item.attempt for item in again] == [2, 2]
    assert bench.run(EndSession(OTHER)) == [0]
    while outcome.wake_in == 0:
        outcome = bench.outcome()
    stats = bench.run(Stats("jobs"))[0]
    assert (stats["ready"], stats["leased"], stats["dead"]) == (many - 2, 2, 0)
    assert bench.run(Ack("jobs", [item[:2] for item in again])) == [True]


def test_an_ended_session_holds_nothing_before_its_items_are_given_back(bench: Bench) -> None:
    """Whoever speaks for it is told so, and its items go to others."""
    many = 5000
    bench.put(*[b"x"] * many)
    taken = bench.get(many)
    first, last = taken[0], taken[-1]
    outcome = bench.outcome(
        EndSession(CONSUMER),
        Ack("jobs", [item[:2] for item in taken]),
        Nack("jobs", last.id, 1, dead=True),
        Touch("jobs", last.id, 1),
        Get("jobs", OTHER, 0, ack=[first[:2], last[:2]]),
    )
    assert [type(answer) for answer in outcome.answers[1:]] == [LeaseLost] * 4
    assert str(outcome.answers[1]) == ", ".join(str(item.id) for item in taken)
    while outcome.wake_in == 0:
        outcome = bench.outcome()
    assert [item[:2] for item in bench.get(many, OTHER)] == [(item.id, 2) for item in taken]


def test_a_lease_whose_keeper_has_died_does_not_count_though_its_time_is_over(bench: Bench) -> None:
    """As many as are given back piece by piece."""
    many = 3000
    bench.configure(max_attempts=1, lease=10.0)
    bench.put(*[b"x"] * many)
    assert len(bench.get(many)) == many
    outcome = bench.outcome(EndSession(CONSUMER, counts=False))
    bench.pass_time(10.1)
    while outcome.wake_in == 0:
        outcome = bench.outcome()
    stats = bench.run(Stats("jobs"))[0]
    assert (stats["ready"], stats["dead"]) == (many, 0)


def test_an_attempt_that_its_keeper_has_ended_does_not_count(bench: Bench) -> None:
    """But its number is used up, so that its late ack is told."""
    bench.configure(max_attempts=2)
    (id,) = bench.put(b"x")
    for attempt in range(1, 5):
        assert bench.get() == [(id, attempt, b"x")]
        assert bench.run(EndSession(CONSUMER, counts=False)) == [1]
        assert isinstance(bench.run(Ack("jobs", [(id, attempt)]))[0], LeaseLost)
    for attempt in (5, 6):
        assert bench.get() == [(id, attempt, b"x")]
        bench.run(EndSession(CONSUMER))
    assert bench.run(Dead("jobs"))[0] == [(id, 2, b"x", bench.run(Dead("jobs"))[0][0].error)]


@pytest.mark.parametrize("end", ["nack", "session", "lease"])
def test_after_its_last_attempt_an_item_is_dead_with_its_last_error(bench: Bench, end: str) -> None:
    """Whatever ended the attempts; it stands in no other count, and has a reason."""
    bench.configure(max_attempts=3, lease=10.0)
    (id,) = bench.put(b"x")
    for attempt in (1, 2, 3):
        assert bench.get() == [(id, attempt, b"x")]
        if end == "nack":
            bench.run(Nack("jobs", id, attempt, error=f"failed {attempt}"))
        elif end == "session":
            bench.run(EndSession(CONSUMER))
        else:
            bench.pass_time(10.1)
    assert bench.get() == []
    ((dead_id, attempts, value, error),) = bench.run(Dead("jobs"))[0]
    assert (dead_id, attempts, value) == (id, 3, b"x")
    assert error == "failed 3" if end == "nack" else error
    stats = bench.run(Stats("jobs"))[0]
    assert stats == {"ready": 0, "delayed": 0, "leased": 0, "dead": 1, "bytes": 0, "paused": False}


def test_a_retried_item_joins_the_end_and_its_attempts_begin_anew(bench: Bench) -> None:
    """One by its id, or all; an old attempt's ack stays lost."""
    bench.configure(max_attempts=1)
    ids = bench.put(b"a", b"b", b"c")
    for id in ids:
        bench.run(Get("jobs", CONSUMER), Nack("jobs", id, 1, error="no"))
    assert bench.run(Dead("jobs", 2), Retry("jobs", ids[1]), Retry("jobs", ids[1]), Retry("jobs", 9999))[1:] == [
        1,
        0,
        0,
    ]
    assert [each.id for each in bench.run(Dead("jobs"))[0]] == [ids[0], ids[2]]
    bench.put(b"d")
    outcome = bench.outcome(Retry("jobs"))
    assert (outcome.answers, outcome.ready) == ([2], {"jobs"})
    taken = bench.get(10)
    assert [item.value for item in taken] == [b"b", b"d", b"a", b"c"]
    assert isinstance(bench.run(Ack("jobs", [(ids[0], 1)]))[0], LeaseLost)
    assert bench.run(Ack("jobs", [item[:2] for item in taken])) == [True]


def test_an_ack_is_answered_true_again_for_this_very_attempt_alone(bench: Bench) -> None:
    """A client repeats an ack whose answer it did not get; an attempt before or after it was never given."""
    (id,) = bench.put(b"x")
    bench.get()
    bench.run(Nack("jobs", id, 1))
    bench.get()
    assert bench.run(Ack("jobs", [(id, 2)]), Ack("jobs", [(id, 2)])) == [True, True]
    bench.restart()
    assert bench.run(Ack("jobs", [(id, 2)])) == [True]
    answers = bench.run(Ack("jobs", [(id, 1)]), Ack("jobs", [(id, 3)]), Ack("jobs", [(id + 1, 1)]))
    assert [type(answer) for answer in answers] == [LeaseLost] * 3


def test_of_an_ack_of_several_the_good_ones_are_done_and_the_lost_ones_named(bench: Bench) -> None:
    """So also of the ack that comes with a get, which then takes nothing."""
    ids = bench.put(b"a", b"b", b"c", b"d")
    bench.get(3)
    answer = bench.run(Ack("jobs", [(ids[0], 1), (ids[1], 7), (ids[3], 1)]))[0]
    assert isinstance(answer, LeaseLost)
    assert str(answer) == f"{ids[1]}, {ids[3]}"
    with pytest.raises(LeaseLost):
        bench.get(5, ack=[(ids[1], 7), (ids[2], 1)])
    stats = bench.run(Stats("jobs"))[0]
    assert (stats["ready"], stats["leased"]) == (1, 1)
    assert [item.value for item in bench.get(5, ack=[(ids[1], 1)])] == [b"d"]


def test_a_restart_of_the_keeper_keeps_leases_and_names_their_sessions(bench: Bench) -> None:
    """They go on, and end at their time; attempts, errors and the dead are kept, too."""
    bench.configure(lease=10.0, max_attempts=3)
    first, second = bench.put(b"a", b"b")
    bench.get()
    bench.run(Nack("jobs", first, 1, error="once"))
    bench.get(1), bench.get(1, OTHER)
    assert sorted(bench.restart()) == [CONSUMER, OTHER]
    assert bench.run(Ack("jobs", [(second, 1)])) == [True]
    bench.pass_time(10.1)
    assert bench.get() == [(first, 3, b"a")]
    bench.run(Nack("jobs", first, 3, error="thrice"))
    assert bench.restart() == []
    assert bench.run(Dead("jobs"))[0] == [(first, 3, b"a", "thrice")]


def test_a_peek_changes_nothing_and_tells_the_attempts_so_far(bench: Bench) -> None:
    """Of ready items alone, in order."""
    first, _, _ = bench.put(b"a", b"b", b"c")
    bench.put(b"later", delay=60.0)
    bench.get()
    bench.run(Nack("jobs", first, 1))
    bench.get(0)
    seen = bench.run(Peek("jobs", 2), Peek("jobs", 10), Peek("jobs", 0))
    assert [[(item.attempt, item.value) for item in each] for each in seen] == [
        [(1, b"a"), (0, b"b")],
        [(1, b"a"), (0, b"b"), (0, b"c")],
        [],
    ]
    assert bench.values() == [b"a", b"b", b"c"]


def test_a_nack_may_end_an_item_at_once(bench: Bench) -> None:
    """It is dead with its error, whatever attempts it has left."""
    (id,) = bench.put(b"x")
    bench.get()
    assert bench.run(Nack("jobs", id, 1, error="refused", dead=True)) == [True]
    assert bench.run(Dead("jobs"))[0] == [(id, 1, b"x", "refused")]
    assert bench.get() == []
