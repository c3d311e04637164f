"""What a repeated call is answered with: puts and gets by their numbers, puts by their ``dedup_id``; over restarts."""

from __future__ import annotations

import pytest

from rpccluster.errors import QueueFull
from rpccluster.queues.engine import Ack, EndSession, Get, Nack, Put, Stats

from .benches import CONSUMER, OTHER, PRODUCER, Bench


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_repeated_put_adds_nothing_and_gets_the_first_ids(bench: Bench, is_restarted: bool) -> None:
    """By session and number, whatever became of the items; another session's number is another one."""
    first = bench.put(b"a", b"b", session=PRODUCER, seq=7)
    bench.get(0, ack=[item[:2] for item in bench.get(1)])
    if is_restarted:
        bench.restart()
    assert bench.put(b"a", b"b", session=PRODUCER, seq=7) == first
    assert bench.put(b"a", session=OTHER, seq=7) != first[:1]
    assert bench.put(b"c", session=PRODUCER, seq=8) not in (first, [])
    assert bench.values() == [b"b", b"a", b"c"]


def test_a_repeat_within_one_batch_is_one_too(bench: Bench) -> None:
    """The second of two in a turn is answered as the first."""
    one, other = bench.run(Put("jobs", [b"a"], PRODUCER, 1), Put("jobs", [b"a"], PRODUCER, 1))
    assert one == other
    assert bench.values() == [b"a"]


def test_a_put_with_a_number_before_the_last_is_refused(bench: Bench) -> None:
    """It came late, and may have been done."""
    bench.put(b"a", session=PRODUCER, seq=7)
    with pytest.raises(ValueError, match="7"):
        bench.put(b"a", session=PRODUCER, seq=6)
    assert bench.values() == [b"a"]


def test_a_number_may_be_as_large_as_they_get(bench: Bench) -> None:
    """64 bits, exactly."""
    first = bench.put(b"a", session=PRODUCER, seq=2**62 + 1)
    assert bench.put(b"a", session=PRODUCER, seq=2**62 + 1) == first
    with pytest.raises(ValueError, match=str(2**62 + 1)):
        bench.put(b"a", session=PRODUCER, seq=2**62)
    assert bench.put(b"b", session=PRODUCER, seq=2**62 + 2) != first


def test_a_put_that_was_refused_is_no_repeat(bench: Bench) -> None:
    """Its number can be used when there is room."""
    bench.configure(max_size=1)
    bench.put(b"a")
    with pytest.raises(QueueFull):
        bench.put(b"b", session=PRODUCER, seq=1)
    bench.get(0, ack=[bench.get()[0][:2]])
    bench.put(b"b", session=PRODUCER, seq=1)
    assert bench.values() == [b"b"]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_repeated_get_has_the_same_items_and_attempts(bench: Bench, is_restarted: bool) -> None:
    """Those that were acked or lost meanwhile are not among them."""
    first, second, third, _ = bench.put(b"a", b"b", b"c", b"d")
    taken = bench.get(3, seq=5)
    bench.run(Ack("jobs", [(first, 1)]), Nack("jobs", second, 1))
    if is_restarted:
        bench.restart()
    assert bench.get(3, seq=5) == taken[2:] == [(third, 1, b"c")]
    assert bench.get(1, OTHER, seq=5) == [(second, 2, b"b")]
    assert bench.get(3, seq=6) == [(taken[2].id + 1, 1, b"d")]


def test_a_repeated_get_acks_once(bench: Bench) -> None:
    """The ack that came with it counts as done."""
    (first, _) = bench.put(b"a", b"b")
    bench.get(seq=1)
    taken = bench.get(seq=2, ack=[(first, 1)])
    assert bench.get(seq=2, ack=[(first, 1)]) == taken
    assert [item.value for item in taken] == [b"b"]


def test_a_get_without_items_may_be_repeated_for_some(bench: Bench) -> None:
    """Its number is not used up."""
    assert bench.get(seq=1) == []
    bench.put(b"a")
    assert bench.values() == [b"a"]


def test_a_session_that_has_ended_repeats_nothing(bench: Bench) -> None:
    """Its items are given back, so the number means new ones."""
    bench.put(b"a")
    bench.get(seq=1)
    bench.run(EndSession(CONSUMER))
    assert [(item.attempt, item.value) for item in bench.get(seq=1)] == [(2, b"a")]


def test_a_dedup_id_adds_one_item_within_its_window(bench: Bench) -> None:
    """Also when that is long acked, and after a restart; after the window it adds another one."""
    bench.configure(dedup_window=300.0)
    first = bench.put(b"a", dedup_id="one")
    assert bench.put(b"other value", dedup_id="one", priority=9) == first
    bench.get(0, ack=[bench.get()[0][:2]])
    bench.restart()
    assert bench.put(b"a", dedup_id="one") == first
    assert bench.put(b"b", dedup_id="two") != first
    bench.pass_time(300.1)
    assert bench.put(b"c", dedup_id="one") != first
    assert bench.values() == [b"b", b"c"]


def test_the_dedup_ids_of_two_queues_are_two(bench: Bench) -> None:
    """And those of a put of several stand for all of them."""
    from rpccluster.queues.engine import Rules

    bench.configure(Rules())
    (several,) = bench.run(Put("jobs", [b"a", b"b"], dedup_id="x"))
    assert bench.run(Put("jobs", [b"c"], dedup_id="x")) == [several]
    bench.run(Put("other", [b"c"], dedup_id="x"))
    assert bench.run(Stats("jobs"), Stats("other"))[1]["ready"] == 1
    assert [item.value for item in bench.run(Get("other", CONSUMER, 9))[0]] == [b"c"]


def test_a_dedup_id_counts_for_a_full_queue(bench: Bench) -> None:
    """What adds nothing needs no room."""
    bench.configure(max_size=1)
    first = bench.put(b"a", dedup_id="one")
    assert bench.put(b"a", dedup_id="one") == first
