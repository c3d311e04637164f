"""``rpc.call``: a call with a deadline that its caller has set, wherever it runs or waits."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Callable

import gevent
import pytest

import rpccluster

from ..native.beside import Beside
from ..rig import Rig, settle, until

PAST = "TimeoutError: the deadline of the call has passed"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Bounded(Beside):
    """Methods that tell how they see their call."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def see(self) -> Any:
        call = rpccluster.current_call()
        assert call is not None
        left = None if call.deadline is None else call.deadline - time.monotonic()
        return [call.method, call.msgid, left, call.cancelled, call.trace]

    @rpccluster.rpc(thread=True)
    def t_see(self) -> Any:
        return self.see()

    async def a_see(self) -> Any:
        return self.see()

    def hold(self) -> None:
        """Until it is interrupted."""
        self.began.append("hold")
        try:
            gevent.sleep(60)
        except BaseException as error:
            call = rpccluster.current_call()
            assert call is not None
            self.errors.append(f"{type(error).__name__}: {error} {call.cancelled}")
            raise

    def swallow(self) -> str:
        self.began.append("swallow")
        try:
            gevent.sleep(60)
        except BaseException:
            self.errors.append("swallowed")
        return "its result"

    def change(self) -> str:
        self.began.append("change")
        try:
            gevent.sleep(60)
        except BaseException:
            raise ValueError("another error") from None
        return ""

    async def a_hold(self) -> None:
        self.began.append("a_hold")
        try:
            await asyncio.sleep(60)
        finally:
            self.errors.append("a_hold")

    @rpccluster.rpc(thread=True)
    def t_hold(self) -> None:
        call = rpccluster.current_call()
        assert call is not None
        self.began.append("t_hold")
        while not call.cancelled:
            time.sleep(0.001)
        self.errors.append("t_hold")

    @rpccluster.rpc(later=True)
    def l_hold(self) -> Any:
        self.began.append("l_hold")
        return rpccluster.Later(on_over=lambda: self.errors.append("l_hold"))

    def pages(self) -> Any:
        yield 1

    @rpccluster.rpc(timeout=0.03)
    def short(self) -> None:
        gevent.sleep(60)

    @rpccluster.rpc(timeout=60)
    def long(self) -> Any:
        gevent.sleep(0.001)
        return self.see()


HOLDING = ["hold", "a_hold", "t_hold", "l_hold"]


@pytest.fixture
def make_rig(make_rig: Callable[..., Rig]) -> Callable[..., Rig]:
    """Workers whose methods may have deadlines."""
    return lambda **options: make_rig(Bounded(), **options)


def quiet(rig: Rig) -> None:
    until(lambda: rig.engine.is_quiet)
    settle()
    assert rig.engine.active_calls == 0


@pytest.mark.parametrize("method", ["see", "a_see", "t_see", "long"])
def test_a_call_knows_its_deadline_and_its_trace(make_rig: Callable[..., Rig], method: str) -> None:
    """Also under the name and the msgid of the call that is named inside."""
    peer = make_rig().connect()
    found = peer.call("rpc.call", method, [], {"timeout": 20, "trace": TRACEPARENT})
    assert found[:2] == [method, 1]
    assert 10 < found[2] < 20
    assert found[3:] == [False, TRACEPARENT]
    assert peer.call(method)[4] is None


@pytest.mark.parametrize("method", ["see", "a_see", "t_see"])
def test_a_call_without_timeout_has_no_deadline(make_rig: Callable[..., Rig], method: str) -> None:
    peer = make_rig().connect()
    for options in ([], [{}], [{"timeout": None}], [{"timeout": 1e300}], [{"timeout": float("inf"), "more": 1}]):
        assert peer.call("rpc.call", method, [], *options)[2] is None


def test_the_sooner_limit_holds(make_rig: Callable[..., Rig]) -> None:
    peer = make_rig().connect()
    with pytest.raises(RuntimeError, match=r"took longer than 0\.03 seconds"):
        peer.call("rpc.call", "short", [], {"timeout": 20})
    with pytest.raises(RuntimeError, match=PAST):
        peer.call("rpc.call", "short", [], {"timeout": 0.01})
    assert peer.call("rpc.call", "long", [], {"timeout": 20})[2] < 20
    with pytest.raises(RuntimeError, match=r"took longer than 0\.03 seconds"):
        peer.call("short")


@pytest.mark.parametrize("method", HOLDING)
def test_a_call_is_interrupted_at_its_deadline(make_rig: Callable[..., Rig], method: str) -> None:
    rig = make_rig()
    peer = rig.connect()
    for seconds in (0.03, 1.0, 10.0):  # on a busy machine a short one is over before the method begins
        with pytest.raises(RuntimeError, match=PAST):
            peer.call("rpc.call", method, [], {"timeout": seconds})
        with contextlib.suppress(AssertionError):
            until(lambda: rig.service.errors, "the method ends", 5.0)
            break
    seen = "CallTimedOut: the deadline of the call has passed True" if method == "hold" else method
    assert rig.service.errors == [seen]
    quiet(rig)
    assert peer.call("echo", 1) == 1


@pytest.mark.parametrize("method", ["swallow", "change"])
def test_past_the_deadline_nothing_of_the_method_is_the_answer(make_rig: Callable[..., Rig], method: str) -> None:
    rig = make_rig()
    peer = rig.connect()
    with pytest.raises(RuntimeError, match=PAST):
        peer.call("rpc.call", method, [], {"timeout": 0.03})
    assert peer.call("echo", 1) == 1
    quiet(rig)


def test_a_method_that_never_switches_is_answered_as_late(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    with pytest.raises(RuntimeError, match=PAST):
        rig.connect().call("rpc.call", "spin", [0.05], {"timeout": 0.02})
    assert rig.service.ended == ["spin"]


def test_a_call_that_has_waited_too_long_is_not_run(make_rig: Callable[..., Rig]) -> None:
    """The time is counted from its arrival: here behind calls of its own connection that keep the worker busy."""
    rig = make_rig()
    peer = rig.connect()
    peer.post("spin", 0.05)
    peer.post("rpc.call", "echo", ["late"], {"timeout": 0.02})
    peer.post("rpc.call", "echo", ["in time"], {"timeout": 20})
    assert peer.wait(3)[1:] == [[2, PAST, None], [3, None, "in time"]]
    assert rig.service.began == ["in time"]


@pytest.mark.parametrize(
    ("method", "kind"), [("wait", "max_greenlets"), ("a_wait", "max_greenlets"), ("t_wait", "threads")]
)
def test_a_held_call_keeps_its_deadline(make_rig: Callable[..., Rig], method: str, kind: str) -> None:
    """While its kind is full; the one that waits without a deadline runs."""
    rig = make_rig(**{kind: 1, "thread_queue": 0})
    first, second = rig.connect(), rig.connect()
    first.post(method, "first")
    until(lambda: rig.service.began == ["first"])
    late = second.post("rpc.call", method, ["late"], {"timeout": 0.02})
    good = second.post("rpc.call", method, ["good"], {"timeout": 20})
    settle()
    gevent.sleep(0.05)
    rig.service.open("first")
    rig.service.gate("first").open()
    until(lambda: "good" in rig.service.began)
    rig.service.open("good")
    rig.service.gate("good").open()
    assert sorted(second.wait(2)) == [[late, PAST, None], [good, None, "good"]]
    assert rig.service.began == ["first", "good"]
    quiet(rig)


@pytest.mark.parametrize("seconds", [0, -1, -1e300, float("-inf"), -(2**63)])
def test_no_time_is_past(make_rig: Callable[..., Rig], seconds: float) -> None:
    rig = make_rig()
    with pytest.raises(RuntimeError, match=PAST):
        rig.connect().call("rpc.call", "echo", [1], {"timeout": seconds})
    assert rig.service.began == []


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (["echo", [1], {"timeout": float("nan")}], "found the timeout nan, expected seconds"),
        (["echo", [1], {"timeout": "3"}], "found the timeout '3', expected seconds"),
        (["echo", [1], {"timeout": True}], "found the timeout True, expected seconds"),
        (["echo", [1], {"timeout": [1]}], r"found the timeout \[1\], expected seconds"),
        (["echo", [1], 5], "found options of type int, expected a map"),
        (["echo", [1], None], "found options of type NoneType, expected a map"),
        (["echo", {"a": 1}, {}], "found params of type dict, expected an array"),
        (["rpc.ping", [], {}], "found 'rpc.ping', expected the name of a method of the service"),
        (["rpc.call", ["echo", [1], {}], {}], "found 'rpc.call', expected the name of a method of the service"),
        (["rpc.cancel", [1], {}], "found 'rpc.cancel', expected the name of a method of the service"),
        ([5, [], {}], "found a method of type int, expected the name of a method of the service"),
        (["", [], {}], "found a method of type str, expected the name of a method of the service"),
        ([], "missing"),
        (["echo"], "missing"),
        (["echo", [], {}, 1], "too many|takes from"),
    ],
    ids=lambda value: None if isinstance(value, list) else value,
)
def test_what_is_no_call(make_rig: Callable[..., Rig], params: list[Any], text: str) -> None:
    rig = make_rig()
    peer = rig.connect()
    with pytest.raises(RuntimeError, match=f"^ArgumentError: .*({text})"):
        peer.call("rpc.call", *params)
    peer.notify("rpc.call", *params)
    assert peer.call("rpc.call", "echo", [1], {}) == 1
    assert rig.service.began == [1]


def test_errors_are_those_of_the_call_inside(make_rig: Callable[..., Rig]) -> None:
    peer = make_rig().connect()
    for method, params, text in (
        ("nothing", [], "'nothing' method not found"),
        ("echo", [1, 2, 3], "ArgumentError: .*echo"),
        ("t_echo", [1, 2, 3], "ArgumentError: .*t_echo"),
        ("fail", ["x"], "RuntimeError: x"),
    ):
        with pytest.raises(RuntimeError, match=text):
            peer.call("rpc.call", method, params, {"timeout": 20})
    assert peer.call("rpc.call", b"echo", [1], {"timeout": 20}) == 1


@pytest.mark.parametrize(
    "trace", ["", "x", 5, None, TRACEPARENT.upper(), TRACEPARENT + "-more", "00-" + "0" * 32 + TRACEPARENT[35:]]
)
def test_what_is_no_trace_is_left_out(make_rig: Callable[..., Rig], trace: Any) -> None:
    assert make_rig().connect().call("rpc.call", "see", [], {"trace": trace})[4] is None


def test_notifications_have_deadlines_too(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    peer = rig.connect()
    peer.notify("rpc.call", "hold", [], {"timeout": 0.03})
    peer.notify("rpc.call", "echo", ["late"], {"timeout": -1})
    until(lambda: rig.service.errors, "it is interrupted")
    quiet(rig)
    assert rig.service.began == ["hold"]
    assert peer.call("echo", 1) == 1


def test_very_many_deadlines(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(max_greenlets=3000, max_pending_calls=3000)
    peer = rig.connect()
    for number in range(1000):
        peer.post("rpc.call", "hold", [], {"timeout": 0.05})
        peer.post("rpc.call", "echo", [number], {"timeout": 20})
    replies = peer.wait(2000)
    assert sum(reply[1] == PAST for reply in replies) == 1000
    assert sum(reply[1] is None for reply in replies) == 1000
    quiet(rig)


def test_the_error_of_an_iterator_says_what_to_do(make_rig: Callable[..., Rig]) -> None:
    peer = make_rig().connect()
    with pytest.raises(RuntimeError, match=r"can not serialize 'generator' object: .* return a list"):
        peer.call("pages")
    with pytest.raises(RuntimeError, match=r"can not serialize 'generator' object: .* return a list"):
        peer.call("rpc.call", "pages", [], {"timeout": 20})
