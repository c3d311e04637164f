"""The pure half of the clients of queues: lanes, tries, sizes, what is held. By a clock that is moved by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rpccluster.client.core.queues.lanes import Lane, Lanes
from rpccluster.client.core.queues.steps import Call, Pause
from rpccluster.client.core.queues.taken import Holding, Taken
from rpccluster.client.core.queues.tries import Tries, is_answer
from rpccluster.client.core.queues.values import UNASKED_BYTES, PutOptions, is_small, size_of
from rpccluster.client.core.queues.verbs import Verbs
from rpccluster.errors import (
    AuthenticationFailed,
    CallTimeout,
    ConnectFailed,
    LeaseLost,
    Lost,
    NotSent,
    QueueDown,
    QueueFull,
    RemoteError,
    RPCClusterError,
)

from ..settling import MadeUpClock

GONE = ConnectFailed("nobody listens")
LOST = Lost("the connection ended")


# -- lanes


def test_a_lane_has_one_owner() -> None:
    """The one used last is taken first; each has a session of its own."""
    lanes = Lanes()
    first, second = lanes.take(), lanes.take()
    assert first.session != second.session
    lanes.give_back(first)
    lanes.give_back(second)
    assert lanes.take() is second
    assert lanes.take() is first


def test_a_lane_that_was_left_comes_back_by_itself() -> None:
    """It is not among the free ones."""
    lanes = Lanes()
    lane = lanes.take(3)
    lanes.leave(lane)
    assert lanes.take() is not lane
    assert lanes.has_unfinished
    assert lanes.take_unfinished() is lane
    assert (lane.number, lane.count, lanes.take_unfinished(), lanes.has_unfinished) == (1, 3, None, False)


# -- tries


def test_tries_go_on_while_the_keeper_may_be_away() -> None:
    """With growing pauses, and no longer than the patience."""
    tries = Tries(0.0, 10.0, 100.0)
    assert tries.wait_left(100.0) == 0.0
    assert tries.begin(100.0) == 10.0
    pauses = [tries.failed(GONE, 100.0 + second) for second in range(10)]
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < pauses[-1] == 0.25
    with pytest.raises(ConnectFailed):
        tries.failed(GONE, 110.0)


def test_a_verb_that_waits_has_its_patience_on_top() -> None:
    """Each try has the rest of its time."""
    tries = Tries(60.0, 10.0, 0.0)
    assert (tries.wait_left(20.0), tries.begin(20.0)) == (40.0, 50.0)
    assert (tries.wait_left(65.0), tries.begin(65.0)) == (0.0, 5.0)
    assert Tries(math.inf, 10.0, 0.0).wait_left(1e9) is None
    assert Tries(math.inf, 10.0, 0.0).begin(1e9) is None


def test_a_connection_that_has_stood_begins_the_patience_anew() -> None:
    """A get may have waited for hours; one that is cut at once each time does not go on for ever."""
    tries = Tries(math.inf, 10.0, 0.0)
    tries.begin(0.0)
    tries.failed(LOST, 5000.0)
    tries.failed(GONE, 5009.0)
    with pytest.raises(ConnectFailed):
        tries.failed(GONE, 5010.0)
    tries = Tries(math.inf, 10.0, 0.0)
    for tenth in range(100):
        tries.begin(tenth / 10)
        tries.failed(LOST, tenth / 10 + 0.05)
    tries.begin(10.0)
    with pytest.raises(Lost):
        tries.failed(LOST, 10.05)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RemoteError("LeaseLost", "7"), LeaseLost),
        (RemoteError("QueueFull", "jobs"), QueueFull),
        (RemoteError("ValueError", "x"), RemoteError),
        (CallTimeout("late"), CallTimeout),
        (AuthenticationFailed("wrong"), AuthenticationFailed),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else each.__name__,
)
def test_what_ends_a_verb(error: RPCClusterError, raised: type[Exception]) -> None:
    """An answer of the keeper, by its class; a timeout."""
    with pytest.raises(raised) as caught:
        Tries(0.0, 10.0, 0.0).failed(error, 1.0)
    assert is_answer(caught.value) is isinstance(error, RemoteError)


@pytest.mark.parametrize("name", ["QueueDown", "WorkerLost", "WorkerRetired"])
def test_what_is_no_answer_is_tried_again(name: str) -> None:
    """The call may have been carried out, so its lane is not clean."""
    tries = Tries(0.0, 10.0, 0.0)
    assert tries.failed(RemoteError(name, "x"), 1.0) > 0
    with pytest.raises(QueueDown if name == "QueueDown" else RemoteError) as caught:
        tries.failed(RemoteError(name, "x"), 11.0)
    assert not is_answer(caught.value)


# -- values


@pytest.mark.parametrize("value", [None, True, 0, -(2**63), 2**64 - 1, 1.5, "x", "ä" * 9, b"y" * 300, [1, {"a": ()}]])
def test_a_size_is_nearly_the_packed_one(value: Any) -> None:
    """Within a few bytes, for what is looked at without packing."""
    import msgpack

    assert 0 <= size_of(value) - len(msgpack.packb(value)) <= 8


@pytest.mark.parametrize(
    "value", ["", "x" * 65_531, b"x" * 65_531, "x" * 65_532, "é", "\udcff", 1, None, [], bytearray(1)]
)
def test_what_is_small_has_a_size_that_every_keeper_takes(value: Any) -> None:
    """Only where the type and the length tell it; all else is packed to know."""
    is_plain = type(value) is bytes or (type(value) is str and value.isascii())
    assert is_small(value) is (is_plain and size_of(value) <= UNASKED_BYTES)


def test_a_packer_that_has_failed_is_not_used_again() -> None:
    """What comes next is counted rightly."""
    size = size_of([1, 2, 3])
    with pytest.raises(TypeError):
        size_of([b"x" * 1000, object()])
    assert size_of([1, 2, 3]) == size


def test_options_that_are_defaults_stay_away() -> None:
    """On the wire are those that were given; zero was given."""
    assert PutOptions().on_wire() == {}
    assert PutOptions(delay=0, token=0, priority=0).on_wire() == {"delay": 0, "token": 0}
    assert PutOptions.of(None, 0, None, None, None, None).on_wire() == {}
    assert PutOptions.of(None, 1, None, "d", None, None).on_wire() == {"priority": 1, "dedup_id": "d"}
    for wrong in (False, 0.0):  # equal to the default, and of another type
        with pytest.raises(TypeError):
            PutOptions(priority=wrong)  # type: ignore[arg-type]


# -- what is held


def test_the_oldest_item_of_a_holder() -> None:
    """Its own first, else anybody's."""
    holding, lane = Holding(), Lane()
    for id, holder in ((1, "a"), (2, "b"), (3, "b")):
        holding.change([Taken(id, 1, None, lane, holder)], [])
    assert [taken.id for taken in map(holding.oldest, "abc") if taken] == [1, 2, 1]
    for id in (1, 2, 3, 3):
        holding.change([], [Taken(id, 1, None, lane)])
    assert holding.oldest("a") is None
    assert (len(holding), holding.lanes()) == (0, set())


# -- steps


def run(steps: Any, *answers: Any) -> tuple[Any, list[Any]]:
    """Perform steps with made-up answers; an exception is raised. Returns the outcome, and the calls."""
    calls, left = [], list(answers)
    try:
        step = next(steps)
        while True:
            if isinstance(step, Pause):
                step = steps.send(None)
                continue
            assert isinstance(step, Call)
            calls.append(step)
            answer = left.pop(0)
            step = steps.throw(answer) if isinstance(answer, BaseException) else steps.send(answer)
    except StopIteration as end:
        return end.value, calls
    except BaseException as error:
        return error, calls


@pytest.fixture
def clock() -> MadeUpClock:
    return MadeUpClock()


@pytest.fixture
def verbs(clock: MadeUpClock) -> Verbs:
    return Verbs("jobs", 10.0, clock, lambda: "a connection")


def test_a_put_that_was_interrupted_leaves_its_lane(verbs: Verbs) -> None:
    """Its number may be answered for the first call yet, so the session is never used again."""
    outcome, calls = run(verbs.put(1, PutOptions(), None), KeyboardInterrupt())
    assert isinstance(outcome, KeyboardInterrupt)
    _, more = run(verbs.put(1, PutOptions(), None), 7)
    _, again = run(verbs.put(1, PutOptions(), None), 8)
    first, second, third = (call.params[2] for call in (*calls, *more, *again))
    assert first["session"] != second["session"] == third["session"]
    assert [each["seq"] for each in (first, second, third)] == [1, 1, 2]


def test_a_get_that_was_interrupted_is_finished_by_the_next(verbs: Verbs) -> None:
    """What it has brought comes first, with its number, and nothing is lost."""
    outcome, calls = run(verbs.get(2, None, (), "me"), KeyboardInterrupt())
    assert isinstance(outcome, KeyboardInterrupt)
    assert verbs.needs_a_look
    found, more = run(verbs.get(1, None, (), "you"), [[5, 1, "x"], [6, 1, "y"]])
    assert [(taken.id, taken.holder) for taken in found] == [(5, "you")]
    first, repeat = calls[0].params[1], more[0].params[1]
    assert (first["session"], first["seq"], repeat["timeout"]) == (repeat["session"], repeat["seq"], 0)
    found, none = run(verbs.get(1, None, (), "you"))
    assert ([taken.id for taken in found], none) == ([6], [])
    _, next_one = run(verbs.get(1, 0, (), "you"), [])
    assert next_one[0].params[1]["seq"] == 2


def test_an_ack_does_not_travel_with_a_repeat(verbs: Verbs) -> None:
    """The keeper would not look at it: it goes by itself when the items were brought before."""
    done = Taken(1, 1, None, Lane())
    run(verbs.get(1, None, (), "me"), KeyboardInterrupt())
    found, calls = run(verbs.get(1, None, [done], "me"), [[5, 1, "x"]], True)
    assert [call.method for call in calls] == ["queue.get", "queue.ack"]
    assert [taken.id for taken in found] == [5]


def test_an_empty_answer_before_the_time_is_asked_again(verbs: Verbs, clock: MadeUpClock) -> None:
    """As one of a keeper that retires; with the next number, and with no ack any more."""
    done = Taken(1, 1, None, Lane())
    found, calls = run(verbs.get(1, None, [done], "me"), [], [], [[5, 1, "x"]])
    assert [taken.id for taken in found] == [5]
    assert [call.params[1]["seq"] for call in calls] == [1, 2, 3]
    assert ["ack" in call.params[1] for call in calls] == [True, False, False]
    found, calls = run(verbs.get(1, 0, (), "me"), [])
    assert (found, len(calls)) == ([], 1)


def test_a_look_lets_sessions_come_back_once(clock: MadeUpClock) -> None:
    """Over a new connection, those that hold items; they ask for none."""
    connection = ["first"]
    verbs = Verbs("jobs", 10.0, clock, lambda: connection[0])
    run(verbs.get(1, None, (), "me"), [[5, 1, "x"]])
    assert [call.method for call in run(verbs.look(), "pong")[1]] == ["rpc.ping"]
    connection[0] = "second"
    _, calls = run(verbs.look(), "pong", [])
    assert [call.method for call in calls] == ["rpc.ping", "queue.get"]
    assert (calls[1].params[1]["n"], calls[1].params[1]["timeout"]) == (0, 0)
    assert [call.method for call in run(verbs.look(), "pong")[1]] == ["rpc.ping"]


def test_a_keeper_that_tells_no_limit(verbs: Verbs) -> None:
    """The client's own limit holds; it is asked once."""
    for answer in (RemoteError("Forbidden", "queue.list"), None):
        answers = [7] if answer is None else [answer, 7]
        outcome, calls = run(verbs.put(b"x" * 100_000, PutOptions(), None), *answers)
        assert outcome == 7
        assert len(calls) == len(answers)


def test_a_closed_queue_tries_nothing_again(verbs: Verbs) -> None:
    """Its client's error ends the verb."""
    verbs.is_closed = True
    outcome, calls = run(verbs.plain("stats"), NotSent("closed"))
    assert (type(outcome), len(calls)) == (NotSent, 1)
