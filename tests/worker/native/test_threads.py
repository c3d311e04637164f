"""Methods in native threads: calls like all others, that hold no greenlet while they run."""

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
    """Workers with two threads."""
    return lambda **options: make_rig(Beside(), **{"threads": 2, "thread_queue": 3, **options})


def quiet(rig: Rig) -> None:
    """Nothing is left of any call, and every thread is free."""
    until(lambda: rig.engine.is_quiet and rig.native.of(Runs.IN_THREAD).taken == 0, "all have ended")
    settle()
    assert (rig.engine.active_calls, rig.cells[Cell.ACTIVE_CALLS], rig.native.of(Runs.IN_THREAD).lost) == (0, 0, 0)
    assert not list(rig.engine.running())


def test_they_run_in_other_threads_and_are_answered(make_rig: Any) -> None:
    """Their results and errors read as those of any method."""
    rig = make_rig()
    peer = rig.connect()
    assert peer.call("t_echo", [1, "two"]) == [1, "two"]
    assert peer.call("t_ident") != thread_id()
    for method, params, text in [
        ("t_fail", ("value", "boom"), "^ValueError: boom$"),
        ("t_fail", ("exit", "3"), "^SystemExit: 3$"),
        ("t_fail", ("type", "own"), "^TypeError: own$"),
        ("t_echo", (1, 2, 3), r"^ArgumentError: .*takes from 1 to 2 positional arguments but 4 were given$"),
        ("t_odd", (), "^TypeError: can.*t? serialize|^TypeError: can not serialize"),
    ]:
        with pytest.raises(RuntimeError, match=text):
            peer.call(method, *params)
    quiet(rig)


def test_while_one_waits_others_go_on(make_rig: Any) -> None:
    """It holds no greenlet, and counts as a call that runs."""
    rig = make_rig(max_greenlets=1)
    peer = rig.connect()
    peer.post("t_wait", "a")
    assert peer.call("echo", 1) == 1
    assert peer.call("t_echo", 2) == 2
    assert (rig.engine.active_calls, [call.message[-2] for call in rig.engine.running()]) == (1, ["t_wait"])
    rig.service.gate("a").open()
    until(lambda: [1, None, "a"] in [reply[1:] for reply in peer.look()])
    quiet(rig)


def test_a_full_pool_holds_back_its_own_calls_alone(make_rig: Any) -> None:
    """Two run, three wait for a thread, further ones have not begun; plain calls of the same connection go on."""
    rig = make_rig()
    peer = rig.connect()
    for number in range(10):
        peer.post("t_wait", number)
    assert peer.call("echo", "plain") == "plain"
    settle()
    assert (rig.engine.active_calls, rig.engine.calls) == (5, 1)
    until(lambda: len(rig.service.began) == 3)
    assert {0, 1} < set(rig.service.began)
    assert not rig.engine.is_quiet
    for number in range(10):
        rig.service.gate(number).open()
    assert rig.limit_counts() == {"thread_queue": 5}
    until(lambda: len(peer.look()) == 11)
    assert sorted(reply[3] for reply in peer.look()[1:]) == list(range(10))
    quiet(rig)


def test_calls_that_are_held_back_move_with_their_connection(make_rig: Any) -> None:
    """They have not begun: they can be withdrawn, and queued again."""
    rig = make_rig()
    first, second = rig.connect(), rig.connect()
    for number in range(7):
        first.post("t_wait", number)
    until(lambda: len(rig.service.began) == 2)
    for number in range(7, 9):
        second.post("t_wait", number)
    settle()
    outbox = next(iter(rig.engine.running())).sender
    taken = rig.engine.withdraw([outbox])
    assert [call[-1] for call in taken[outbox]] == [[5], [6]]
    assert rig.engine.withdraw([outbox]) == {}
    for number in range(9):
        rig.service.gate(number).open()
    assert sorted(reply[2] for reply in second.wait(2)) == [7, 8]
    assert sorted(reply[2] for reply in first.wait(5)) == [0, 1, 2, 3, 4]
    quiet(rig)


def test_past_its_limit_it_is_answered_and_its_thread_is_lost(make_rig: Any) -> None:
    """The method goes on, and can see that its call is over; its thread is back when it returns."""
    rig = make_rig()
    peer = rig.connect()
    with pytest.raises(RuntimeError, match=r"^TimeoutError: the call took longer than 0.05 seconds$"):
        peer.call("t_wait_soon", "a")
    assert (rig.native.of(Runs.IN_THREAD).lost, rig.cells[Cell.THREADS_LOST], rig.engine.active_calls) == (1, 1, 0)
    assert rig.retired == ["half of its threads are lost"]
    assert rig.service.seen["a"].cancelled
    assert peer.call("t_echo", "by the other thread") == "by the other thread"
    assert rig.cells[Cell.CALL_TIMEOUT] == 1
    rig.service.gate("a").open()
    quiet(rig)
    assert (rig.service.ended, rig.cells[Cell.THREADS_LOST]) == (["a"], 0)


def test_one_that_waits_for_a_thread_past_its_limit_is_never_run(make_rig: Any) -> None:
    """No thread is lost by it."""
    rig = make_rig(threads=1)
    peer = rig.connect()
    peer.post("t_wait", "a")
    with pytest.raises(RuntimeError, match=r"^TimeoutError: "):
        peer.call("t_wait_soon", "b")
    assert rig.native.of(Runs.IN_THREAD).lost == 0
    rig.service.gate("a").open()
    quiet(rig)
    assert rig.service.began == ["a"]


def test_at_the_end_of_the_worker_they_are_given_up(make_rig: Any) -> None:
    """Each is answered at once."""
    rig = make_rig()
    peer = rig.connect()
    for number in range(4):
        peer.post("t_wait", number)
    until(lambda: len(rig.service.began) == 2)
    rig.engine.give_up("its graceful_timeout is over")
    assert {reply[1] for reply in peer.wait(4)} == {"WorkerRetired: its graceful_timeout is over"}
    assert rig.native.of(Runs.IN_THREAD).lost == 2
    for number in range(4):
        rig.service.gate(number).open()
    quiet(rig)
    assert sorted(rig.service.began) == [0, 1]


def test_when_its_caller_goes_it_runs_on(make_rig: Any) -> None:
    """As any method does; nobody gets its result."""
    rig = make_rig()
    peer = rig.connect()
    peer.post("t_wait", "a")
    peer.post("t_wait", "b")
    until(lambda: len(rig.service.began) == 2)
    peer.connection.close()
    assert (rig.engine.active_calls, rig.native.of(Runs.IN_THREAD).lost) == (2, 0)
    rig.service.open_all()
    quiet(rig)
    assert sorted(rig.service.ended) == ["a", "b"]
    assert rig.engine.dropped_replies == 2


def test_each_call_has_a_context_of_its_own(make_rig: Any) -> None:
    """Nothing of one call is left for the next, although they share a thread."""
    rig = make_rig(threads=1)
    peer = rig.connect()
    assert [peer.call("t_mark", "a"), peer.call("t_mark", "b")] == ["nothing", "nothing"]


@pytest.mark.parametrize(("method", "is_main"), [("t_call", False), ("a_call", False), ("g_call", True)])
def test_a_call_sees_itself(make_rig: Any, method: str, is_main: bool) -> None:
    """``current_call()`` tells the same in calls of all kinds."""
    peer = make_rig().connect()
    peer.call("echo")
    assert peer.call(method) == [method, "127.0.0.1:4711", 2, True, False, None, is_main]


def test_notifications_run_too(make_rig: Any) -> None:
    """They get no reply, and one that is full does not lose them."""
    rig = make_rig(threads=1, thread_queue=0)
    peer = rig.connect()
    for number in range(5):
        peer.notify("t_wait", number)
        rig.service.gate(number).open()
    until(lambda: rig.service.ended == [0, 1, 2, 3, 4])
    quiet(rig)
    assert peer.look() == []


def test_the_limits_may_change(make_rig: Any) -> None:
    """More threads begin when they are needed, surplus ones end when they are free; no call is lost meanwhile."""
    rig = make_rig(threads=1, thread_queue=0)
    threads = rig.native.of(Runs.IN_THREAD)
    peer = rig.connect()
    for number in range(6):
        peer.post("t_wait", number)
    until(lambda: len(rig.service.began) == 1)
    rig.options.set(threads=3, thread_queue=1)
    until(lambda: len(rig.service.began) == 3)
    assert (rig.engine.active_calls, threads._started) == (4, 3)
    rig.options.set(threads=1, thread_queue=5)
    settle()
    assert (rig.engine.active_calls, len(rig.service.began)) == (6, 3)
    for number in range(6):
        rig.service.gate(number).open()
    until(lambda: len(peer.look()) == 6)
    until(lambda: threads._started == 1)
    rig.options.set(threads=4)
    for number in range(200):
        peer.post("t_echo", number)
        if number % 20 == 0:
            rig.options.set(threads=number // 20 % 4 + 1)
    until(lambda: len(peer.look()) == 206)
    rig.options.set(threads=1)
    until(lambda: threads._started == 1)
    assert peer.call("t_echo", "the last") == "the last"
    quiet(rig)
