"""Who gets which item and when, who waits for how long, and what is left to a successor; on the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from rpccluster.errors import NoSuchQueue, QueueDown, QueueFull
from rpccluster.queues.engine import Ack, Get, Nack, Pause, Purge, Resume, Stats
from rpccluster.service import Later
from rpccluster.services.keeper.desk import MOST_ASKED
from rpccluster.services.keeper.waiting import NEVER, Call

from .bench import Bench, answer, session

Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes the desk, with the rules of its queue."""
    made: list[Bench] = []

    def bench(**rules: object) -> Bench:
        made.append(Bench(tmp_path, **rules))
        return made[-1]

    yield bench
    for each in made:
        each.close()


def values(call: Call) -> list[object]:
    """The values that a get was answered with; empty while it waits."""
    return [item[2] for item in answer(call.later) or []]


def test_who_comes_first_is_served_first(make: Make) -> None:
    """Each put goes to the next that waits, by the same commit; so does a put of several."""
    bench = make()
    waiting = [bench.get(number) for number in range(5)]
    before = len(bench.batches.ran)
    bench.put("a")
    bench.put("b", "c", "d")
    assert [values(call) for call in waiting] == [["a"], ["b"], ["c"], ["d"], []]
    assert len(bench.batches.ran) - before == 2
    bench.put("e", turn=False)
    late = bench.get(9)
    assert (values(waiting[4]), values(late)) == (["e"], [])


def test_many_at_once_are_served_in_order(make: Make) -> None:
    """Also those beyond what one batch asks, and nobody who comes meanwhile overtakes them."""
    bench = make()
    waiting = [bench.get(number, turn=False) for number in range(700)]
    bench.batches.turn()
    bench.put(*range(500), turn=False)
    late = [bench.get(1000 + number, turn=False) for number in range(3)]
    bench.batches.turn()
    assert [values(call) for call in waiting[:500]] == [[number] for number in range(500)]
    assert not any(values(call) for call in [*waiting[500:], *late])
    bench.put(*range(203))
    assert [values(call) for call in [*waiting[500:], *late]] == [[number] for number in range(203)]


def test_a_get_waits_for_the_first_item_only(make: Make) -> None:
    """And gets at most as many as it wants."""
    bench = make()
    call = bench.get(1, n=3)
    bench.put("a")
    assert values(call) == ["a"]
    bench.put(*"bcde")
    assert values(bench.get(1, n=3)) == ["b", "c", "d"]


def test_an_answer_is_no_larger_than_it_may_be(make: Make) -> None:
    """What does not fit stays where it is, and costs no attempt; a first item always fits."""
    bench = make()
    bench.put(*(letter * 100 for letter in "abc"))
    call = Call("q", Get("q", session(1), 3, most_bytes=250), Later(), NEVER, bench.get(2, 0.0, n=0).connection)
    bench.desk.get(call)
    bench.batches.turn()
    assert [item[2][0] for item in answer(call.later)] == ["a", "b"]
    small = Call("q", Get("q", session(1), 3, most_bytes=1), Later(), NEVER, call.connection)
    bench.desk.get(small)
    bench.batches.turn()
    assert [item[1:] for item in answer(small.later)] == [[1, "c" * 100]]


def test_what_is_given_back_goes_to_who_waits(make: Make) -> None:
    """Also what begins to be given out again, after a pause; nobody is asked in vain meanwhile."""
    bench = make()
    bench.put("a")
    [[id_, attempt, _]] = answer(bench.get(1).later)
    waiting = bench.get(2)
    assert bench.run(Nack("q", id_, attempt)) is True
    assert values(waiting) == ["a"]
    bench.run(Pause("q"))
    other = bench.get(3)
    bench.put("b")
    assert values(other) == []
    asked = len(bench.batches.ran)
    bench.batches.turn()
    assert len(bench.batches.ran) == asked
    bench.run(Resume("q"))
    assert values(other) == ["b"]


def test_the_time_of_a_get_is_over(make: Make) -> None:
    """Then it is answered with nothing, and no item goes its way any more; 0 does not wait at all."""
    bench = make()
    assert answer(bench.get(1, 0.0).later) == []
    short, long = bench.get(1, 1.0), bench.get(2, 5.0)
    bench.pass_time(2.0)
    assert (answer(short.later), answer(long.later)) == ([], None)
    bench.put("a")
    assert values(long) == ["a"]
    assert bench.desk.gets.count == 0


def test_no_item_is_lost_by_a_time_that_is_over_just_now(make: Make) -> None:
    """While the engine is asked for it the get is not over."""
    bench = make()
    call = bench.get(1, 1.0)
    bench.batches.between = lambda: [timer.do() for timer in list(bench.loop.timers) if not timer.is_closed]
    bench.put("a", turn=False)
    bench.now += 2.0
    bench.batches.turn()
    assert values(call) == ["a"]


def test_while_the_store_is_silent_a_call_ends_in_its_time(make: Make) -> None:
    """It is told that the call may have been done; the repeat of a get has what the first one was to have."""
    bench = make()
    waiting, late = bench.get(1), []

    def fall_silent() -> None:
        bench.batches.between = lambda: None
        bench.batches.since = bench.now
        late.extend([bench.get(2, 0.5, turn=False), bench.put("b", timeout=0.5, turn=False)])
        bench.pass_time(0.2, turn=False)
        assert [answer(call.later) for call in calls] == [None] * 3  # not at once, since a store may take some time
        bench.pass_time(0.4, turn=False)
        bench.batches.since = NEVER

    bench.put("x")
    assert values(waiting) == ["x"]
    bench.batches.between = fall_silent
    calls = [bench.get(3, 0.1, seq=1, turn=False), bench.put("a", timeout=0.1, turn=False), bench.get(4, turn=False)]
    bench.batches.turn()
    for call in [*calls[:2], *late]:
        with pytest.raises(QueueDown, match="does not answer"):
            answer(call.later)
    assert values(bench.get(3, seq=1)) == ["a"]
    assert values(calls[2]) == ["b"]


def test_an_item_for_nobody_is_given_back(make: Make) -> None:
    """A caller that was answered otherwise meanwhile, as by its deadline, does not hold an item."""
    bench = make()
    call = bench.get(1)
    bench.batches.between = lambda: call.later.reply([])
    bench.put("a")
    bench.batches.between = lambda: None
    assert values(bench.get(2)) == ["a"]


def test_a_repeat_takes_the_place_of_the_first(make: Make) -> None:
    """The first is answered with an error; one that has had its items is answered with the same."""
    bench = make()
    first, second = bench.get(1, seq=1).later, bench.get(2, seq=1)
    again = bench.get(1, seq=1)
    with pytest.raises(QueueDown):
        answer(first)
    bench.put("a", "b")
    assert (values(again), values(second)) == (["a"], ["b"])
    assert answer(bench.get(1, seq=1).later) == answer(again.later)


def test_a_peer_that_has_gone_waits_for_nothing(make: Make) -> None:
    """Its waiting gets are answered, and the next is served."""
    bench = make()
    gone, other = bench.get(1), bench.get(2)
    bench.desk.let_go(list(gone.connection.calls))
    assert answer(gone.later) == []
    bench.put("a")
    assert values(other) == ["a"]


def test_puts_wait_while_a_queue_is_full(make: Make) -> None:
    """In their order, until something has left; within their time only."""
    bench = make(max_size=2)
    bench.put("a", "b")
    with pytest.raises(QueueFull):
        answer(bench.put("c", timeout=0.0).later)
    short, first, second = (
        bench.put(value, timeout=seconds) for value, seconds in (("d", 1.0), ("e", None), ("f", None))
    )
    bench.pass_time(2.0)
    with pytest.raises(QueueFull):
        answer(short.later)
    [[id_, attempt, _]] = answer(bench.get(1).later)
    assert answer(first.later) is None
    bench.run(Ack("q", [(id_, attempt)]))
    assert (answer(first.later) is not None, answer(second.later)) == (True, None)
    assert bench.run(Purge("q")) == 2
    assert answer(second.later) is not None


def test_a_put_that_never_has_room_does_not_wait(make: Make) -> None:
    """It would wait for ever."""
    bench = make(max_size=2, max_bytes=100)
    for values in (["a", "b", "c"], ["x" * 100]):
        with pytest.raises(QueueFull):
            answer(bench.put(*values).later)
    assert bench.desk.puts.count == 0


def test_all_puts_that_wait_have_the_room_there_is(make: Make) -> None:
    """Though there are more than one batch runs again, and nothing leaves after that."""
    number = 2 * MOST_ASKED + 10
    bench = make(max_size=number)
    bench.put(*range(number))
    calls = [bench.put("b", turn=False) for _ in range(number)]
    bench.batches.turn()
    assert bench.desk.puts.count == number
    assert bench.run(Purge("q")) == number
    assert all(answer(call.later) is not None for call in calls)


def test_a_put_that_is_over_is_not_made(make: Make) -> None:
    """Its caller was told that it has failed, or has gone; the next one has the room."""
    bench = make(max_size=1)
    bench.put("a")
    gone, other = bench.put("b"), bench.put("c")
    assert gone.later._take()
    gone.later._on_over()  # as the worker tells it
    assert bench.run(Purge("q")) == 1
    assert (answer(gone.later), answer(other.later) is not None) == (None, True)
    assert bench.desk.puts.count == 0


def test_a_join_waits_for_the_last_item(make: Make) -> None:
    """Delayed and leased ones count; an empty queue is done at once."""
    bench = make()
    assert answer(bench.join().later) is True
    bench.put("a")
    [[id_, attempt, _]] = answer(bench.get(1).later)
    joined = bench.join()
    assert answer(joined.later) is None
    bench.run(Ack("q", [(id_, attempt)]))
    assert answer(joined.later) is True


def test_errors_reach_their_calls(make: Make) -> None:
    """And nothing is left of them."""
    bench = make()
    call = Call("nobody", Get("nobody", session(1)), Later(), NEVER, bench.get(1).connection)
    bench.desk.get(call)
    bench.batches.turn()
    with pytest.raises(NoSuchQueue):
        answer(call.later)
    with pytest.raises(NoSuchQueue):
        bench.run(Stats("nobody"))


def test_the_end_of_everything_answers_all_that_wait(make: Make) -> None:
    """And lets none wait any more."""
    bench = make(max_size=1)
    get = bench.get(1)
    bench.put("a")
    calls = [bench.get(2), bench.put("c", "d"), bench.join()]
    bench.desk.refuse("the end")
    calls.append(bench.get(3))
    for call in calls:
        with pytest.raises((QueueDown, QueueFull)):
            answer(call.later)
    assert values(get) == ["a"]


def test_old_deadlines_do_not_gather(make: Make) -> None:
    """A consumer that gets again and again with a long timeout leaves nothing behind."""
    bench = make()
    for number in range(3000):
        call = bench.get(1, 1000.0)
        bench.put(number)
        assert values(call) == [number]
    assert len(bench.desk.gets._due) < 1100


# -- batches that begin before the answers of the one before are told


def test_puts_do_not_wait_for_the_answers_of_others(make: Make) -> None:
    """As long as no get is among them."""
    bench = make()
    calls: list[Call] = []

    def come() -> None:
        if len(calls) < 20:
            calls.append(bench.put(len(calls), turn=False))

    bench.batches.between = come
    bench.put("first")
    assert bench.batches.early == 20
    assert len({answer(call.later)[0] for call in calls}) == 20
    assert values(bench.get(1, n=100)) == ["first", *range(20)]


def test_whoever_has_found_nothing_waits_before_others_that_come(make: Make) -> None:
    """A get and a put come while its get is answered with nothing: it gets the item."""
    bench = make()
    late: list[Call] = []

    def come() -> None:
        if not late:
            late.append(bench.get(2, turn=False))
            bench.put("x", turn=False)

    bench.batches.between = come
    first = bench.get(1)
    assert answer(first.later)[0][2] == "x"
    assert answer(late[0].later) is None
    assert bench.batches.early == 0


def test_a_put_that_found_no_room_waits_before_others_that_come(make: Make) -> None:
    """What gets room first is the first."""
    bench = make(max_size=1)
    bench.put("a")
    late: list[Call] = []

    def come() -> None:
        if not late:
            late.append(bench.put("c", turn=False))

    bench.batches.between = come
    first = bench.put("b")
    assert bench.batches.early == 0
    ((id, attempt, _),) = answer(bench.get(1).later)
    bench.run(Ack("q", [(id, attempt)]))
    assert answer(first.later)
    assert answer(late[0].later) is None
