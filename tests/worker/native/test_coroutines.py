"""Methods that are coroutines: they run on one asyncio loop, in a native thread."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from rpccluster.ipc.scoreboard import Cell
from rpccluster.worker.native.primitives import thread_id
from rpccluster.worker.service.registry import Runs

from ..rig import Rig, settle, until
from .beside import Beside


@pytest.fixture
def make_rig(make_rig: Callable[..., Rig]) -> Callable[..., Rig]:
    """Workers whose methods run beside the greenlets."""
    return lambda **options: make_rig(Beside(), **options)


def quiet(rig: Rig) -> None:
    """Nothing is left of any call."""
    until(lambda: rig.engine.is_quiet and rig.native.of(Runs.ON_LOOP).taken == 0, "all have ended")
    settle()
    assert (rig.engine.active_calls, rig.cells[Cell.ACTIVE_CALLS]) == (0, 0)
    assert not list(rig.engine.running())


def test_they_run_on_one_loop_and_are_answered(make_rig: Any) -> None:
    """Their results and errors read as those of any method."""
    rig = make_rig()
    peer = rig.connect()
    assert peer.call("a_echo", [1, "two"]) == [1, "two"]
    assert thread_id() != peer.call("a_ident") == peer.call("a_ident")
    for method, params, text in [
        ("a_fail", ("value", "boom"), "^ValueError: boom$"),
        ("a_fail", ("exit", "3"), "^SystemExit: 3$"),
        ("a_fail", ("cancelled", "own"), "^CancelledError: own$"),
        ("a_fail", ("type", "own"), "^TypeError: own$"),
        ("a_echo", (1, 2, 3), r"^ArgumentError: .*takes from 1 to 2 positional arguments but 4 were given$"),
        ("a_odd", (), "^TypeError: can"),
    ]:
        with pytest.raises(RuntimeError, match=text):
            peer.call(method, *params)
    quiet(rig)


def test_many_wait_at_once(make_rig: Any) -> None:
    """They hold no greenlet."""
    rig = make_rig(max_greenlets=200)
    peer = rig.connect()
    for number in range(200):
        peer.post("a_wait", number)
    until(lambda: len(rig.service.began) == 200)
    assert peer.call("echo", 1) == 1
    assert rig.engine.active_calls == 200
    for number in range(200):
        rig.service.gate(number).open()
    assert sorted(reply[3] for reply in until(lambda: peer.look()[1:] if len(peer.look()) == 201 else ())) == [
        *range(200)
    ]
    quiet(rig)


def test_beyond_max_greenlets_they_are_held_back(make_rig: Any) -> None:
    """Plain calls go on meanwhile, and a higher limit lets them begin at once."""
    rig = make_rig(max_greenlets=2)
    peer = rig.connect()
    for number in range(6):
        peer.post("a_wait", number)
    assert peer.call("echo", "plain") == "plain"
    assert (rig.engine.active_calls, rig.service.began.count("plain")) == (2, 1)
    rig.options.set(max_greenlets=4)
    until(lambda: rig.engine.active_calls == 4)
    for number in range(6):
        rig.service.gate(number).open()
    until(lambda: len(peer.look()) == 7)
    quiet(rig)


def test_past_its_limit_it_is_answered_and_cancelled(make_rig: Any) -> None:
    """It sees that, and its ``finally`` runs."""
    rig = make_rig()
    peer = rig.connect()
    with pytest.raises(RuntimeError, match=r"^TimeoutError: the call took longer than 0.05 seconds$"):
        peer.call("a_wait_soon", "a")
    assert rig.service.seen["a"].cancelled
    quiet(rig)
    assert (rig.service.cancelled, rig.service.ended, rig.cells[Cell.CALL_TIMEOUT]) == (["a"], [], 1)


def test_one_that_goes_on_is_cancelled_again(make_rig: Any) -> None:
    """Each second, until it ends; its place is taken until then."""
    rig = make_rig()
    peer = rig.connect()
    peer.post("a_deaf", "a", 2)
    until(lambda: rig.service.began)
    rig.engine.give_up("its graceful_timeout is over")
    assert peer.wait(1) == [[1, "WorkerRetired: its graceful_timeout is over", None]]
    assert rig.native.of(Runs.ON_LOOP).taken == 1
    quiet(rig)
    assert (rig.service.cancelled, rig.service.ended) == (["a", "a"], ["a"])


def test_one_that_is_over_before_it_begins_is_never_run(make_rig: Any) -> None:
    """Nothing is left of it."""
    rig = make_rig()
    peer = rig.connect()
    peer.call("echo")  # the engine is warm
    for number in range(50):
        peer.post("a_wait", number)
    until(lambda: rig.engine.active_calls == 50)
    rig.engine.give_up("its graceful_timeout is over")
    assert {reply[1] for reply in peer.wait(51)[1:]} == {"WorkerRetired: its graceful_timeout is over"}
    quiet(rig)
    assert sorted(rig.service.cancelled) == sorted(set(rig.service.began) - {None})


def test_when_its_caller_goes_it_runs_on(make_rig: Any) -> None:
    """As any method does; nobody gets its result."""
    rig = make_rig()
    peer = rig.connect()
    peer.post("a_wait", "a")
    until(lambda: rig.service.began)
    peer.connection.close()
    assert rig.engine.active_calls == 1
    rig.service.open_all()
    quiet(rig)
    assert (rig.service.ended, rig.service.cancelled, rig.engine.dropped_replies) == (["a"], [], 1)


def test_each_call_has_a_context_of_its_own(make_rig: Any) -> None:
    """Nothing of one call is left for the next."""
    peer = make_rig().connect()
    assert [peer.call("a_mark", "a"), peer.call("a_mark", "b")] == ["nothing", "nothing"]


def test_a_task_that_leaves_does_not_end_the_loop(make_rig: Any) -> None:
    """It is logged, and others go on."""
    peer = make_rig().connect()
    assert peer.call("a_child_exits") == "SystemExit(3)"
    assert peer.call("a_echo", 1) == 1
