"""In which order items are given: by priority, by place; the groups; delays; what is given back."""

from __future__ import annotations

from rpccluster.queues.engine import Get, Nack, Pause, Peek, Put, Resume, Stats

from .benches import CONSUMER, OTHER, Bench


def test_within_a_priority_first_in_is_first_out_and_9_goes_first(bench: Bench) -> None:
    """Ten priorities, in any order of puts."""
    for priority in (0, 9, 3, 9, 0, 5):
        bench.put(b"%d" % priority, b"%d again" % priority, priority=priority)
    assert bench.values() == [
        *(b"9", b"9 again") * 2,
        *(b"5", b"5 again"),
        *(b"3", b"3 again"),
        *(b"0", b"0 again") * 2,
    ]


def test_ids_grow_and_name_the_items(bench: Bench) -> None:
    """A put is answered with the ids that a get gives, in the order of the values."""
    ids = bench.put(b"a", b"b") + bench.put(b"c")
    assert ids == sorted(set(ids)) and ids[0] >= 1
    assert [(item.id, item.attempt, item.value) for item in bench.get(5)] == list(
        zip(ids, (1, 1, 1), (b"a", b"b", b"c"))
    )


def test_an_item_given_back_keeps_its_place(bench: Bench) -> None:
    """Before what was put later, though it was out meanwhile."""
    first, _ = bench.put(b"a", b"b")
    bench.get()
    assert bench.run(Nack("jobs", first, 1)) == [True]
    assert [(item.attempt, item.value) for item in bench.get(2)] == [(2, b"a"), (1, b"b")]


def test_one_given_back_with_a_delay_joins_the_end_when_it_is_due(bench: Bench) -> None:
    """And is not given before; the end is that of its priority."""
    first, _ = bench.put(b"a", b"b")
    bench.get()
    bench.run(Nack("jobs", first, 1, delay=5.0))
    assert bench.run(Stats("jobs"))[0]["delayed"] == 1
    bench.put(b"c")
    bench.put(b"urgent", priority=1)
    bench.pass_time(5.1)
    assert bench.values() == [b"urgent", b"b", b"c", b"a"]


def test_a_delayed_item_comes_when_it_is_due_at_the_end(bench: Bench) -> None:
    """It stands behind what was put before it was due, and `ready` names its queue."""
    bench.put(b"late", delay=10.0)
    bench.put(b"early", delay=4.0)
    assert bench.values() == []
    assert 0 < (bench.outcome().wake_in or 0) <= 4.1
    bench.pass_time(4.1)
    assert bench.outcome().ready == {"jobs"}
    bench.put(b"now")
    bench.pass_time(6.1)
    assert bench.values() == [b"early", b"now", b"late"]


def test_one_item_of_a_group_is_out_at_a_time(bench: Bench) -> None:
    """Others, and items without a group, go on; the next one comes when it is acked."""
    bench.put(b"a1", b"a2", group="a")
    bench.put(b"b1", group="b")
    bench.put(b"none")
    taken = bench.get(10)
    assert [item.value for item in taken] == [b"a1", b"b1", b"none"]
    assert bench.run(Stats("jobs"))[0]["ready"] == 1
    (next_one,) = bench.get(10, OTHER, ack=[taken[0][:2]])
    assert next_one.value == b"a2"


def test_in_a_group_the_order_is_that_of_the_queue(bench: Bench) -> None:
    """A higher priority goes first, also if it came later; what is given back goes before what came later."""
    bench.put(b"low", group="g")
    bench.put(b"high", group="g", priority=9)
    (high,) = bench.get(10)
    assert high.value == b"high"
    bench.put(b"highest so far", group="g", priority=9)
    assert bench.get(10) == []
    bench.run(Nack("jobs", high.id, 1))
    assert [item.value for item in bench.run(Peek("jobs", 10))[0]] == [b"high", b"highest so far", b"low"]
    for expected in (b"high", b"highest so far", b"low"):
        (item,) = bench.get(10)
        assert item.value == expected
        bench.get(0, ack=[item[:2]])


def test_a_group_goes_on_while_one_of_its_items_is_delayed_or_dead(bench: Bench) -> None:
    """Only what is out holds the others back."""
    bench.configure(max_attempts=2)
    first, _, _ = bench.put(b"1", b"2", b"3", group="g")
    bench.get()
    bench.run(Nack("jobs", first, 1, delay=60.0))
    (second,) = bench.get(10)
    bench.run(Nack("jobs", second.id, 1))
    (again,) = bench.get(10)
    assert again.value == b"2"
    bench.run(Nack("jobs", again.id, 2))
    assert bench.values(10) == [b"3"]


def test_a_paused_queue_gives_nothing_also_after_a_restart(bench: Bench) -> None:
    """It takes puts; `Resume` says that there may be ready items."""
    bench.put(b"a")
    assert bench.run(Pause("jobs"), Get("jobs", CONSUMER), Put("jobs", [b"b"]))[:2] == [True, []]
    assert bench.outcome().ready == frozenset()
    bench.restart()
    assert bench.run(Stats("jobs"))[0]["paused"] is True
    assert bench.values() == []
    assert bench.outcome(Resume("jobs")).ready == {"jobs"}
    assert bench.values() == [b"a", b"b"]


def test_a_get_takes_no_more_than_there_are_and_no_more_than_it_asked_for(bench: Bench) -> None:
    """In order, over several gets of one batch."""
    bench.put(*(b"%d" % n for n in range(5)))
    answers = bench.run(Get("jobs", CONSUMER, 2), Get("jobs", OTHER, 2), Get("jobs", CONSUMER, 2), Get("jobs", OTHER))
    assert [[item.value for item in answer] for answer in answers] == [[b"0", b"1"], [b"2", b"3"], [b"4"], []]


def test_what_one_verb_has_done_the_next_of_its_batch_sees(bench: Bench) -> None:
    """A batch is run in order, and `ready` names only queues that have something left."""
    assert bench.outcome(Put("jobs", [b"x"]), Get("jobs", CONSUMER)).ready == frozenset()
    assert bench.outcome(Put("jobs", [b"y", b"z"])).ready == {"jobs"}
    assert bench.outcome(Get("jobs", CONSUMER)).ready == {"jobs"}
    assert bench.outcome(Get("jobs", CONSUMER)).ready == frozenset()
