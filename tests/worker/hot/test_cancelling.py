"""``rpc.cancel``: a caller ends its calls before their time, wherever they run or wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import rpccluster

from ..rig import Gated, Peer, Rig, settle, until
from .test_deadlines import HOLDING, Bounded, quiet

CANCELLED = "Cancelled: the caller has cancelled the call"


@pytest.fixture
def make_rig(make_rig: Callable[..., Rig]) -> Callable[..., Rig]:
    """Workers whose methods may have deadlines."""
    return lambda **options: make_rig(Bounded(), **options)


def cancel(peer: Peer, msgid: Any) -> None:
    peer.notify("rpc.cancel", msgid)


@pytest.mark.parametrize("method", [*HOLDING, "swallow", "change"])
@pytest.mark.parametrize("has_deadline", [False, True], ids=["plain", "bounded"])
def test_a_cancelled_call_is_interrupted(make_rig: Callable[..., Rig], method: str, has_deadline: bool) -> None:
    rig = make_rig()
    peer = rig.connect()
    msgid = peer.post("rpc.call", method, [], {"timeout": 60}) if has_deadline else peer.post(method)
    until(lambda: rig.service.began == [method])
    cancel(peer, msgid)
    assert peer.wait(1) == [[msgid, CANCELLED, None]]
    seen = {"hold": f"{CANCELLED} True", "swallow": "swallowed"}.get(method, method)
    until(lambda: method == "change" or rig.service.errors == [seen], "the method ends")
    quiet(rig)
    assert peer.call("echo", 1) == 1


@pytest.mark.parametrize("method", HOLDING)
def test_a_call_may_be_cancelled_in_the_same_breath(make_rig: Callable[..., Rig], method: str) -> None:
    rig = make_rig()
    peer = rig.connect()
    msgid = peer.post(method)
    cancel(peer, msgid)
    assert peer.wait(1) == [[msgid, CANCELLED, None]]
    quiet(rig)


def test_harmless_cancellations(make_rig: Callable[..., Rig]) -> None:
    """Of a finished call, of none, of somebody else's, of itself, of what is no msgid."""
    rig = make_rig()
    first, second = rig.connect(), rig.connect()
    assert first.call("echo", 1) == 1
    theirs = [second.post("wait", number) for number in range(5)]
    settle()
    for wrong in (1, 2, 0, -1, 2**32, 2**64 - 1, 3.0, "1", None, [1], b"1", True, *theirs):
        cancel(first, wrong)
    first.notify("rpc.cancel")
    first.notify("rpc.cancel", 1, 2)
    assert first.call("rpc.cancel", first._msgid + 1) is None  # itself
    with pytest.raises(RuntimeError, match="ArgumentError"):
        first.call("rpc.cancel")
    rig.service.open(*range(5))
    assert sorted(second.wait(5)) == [[msgid, None, msgid - 1] for msgid in theirs]
    assert first.call("echo", 2) == 2
    quiet(rig)


def test_all_calls_with_the_msgid_are_cancelled(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    peer = rig.connect()
    for method in ("hold", "hold", "a_hold", "l_hold"):
        peer._msgid = 6
        assert peer.post(method) == 7
    settle()
    cancel(peer, 7)
    assert peer.wait(4) == [[7, CANCELLED, None]] * 4
    quiet(rig)


@pytest.mark.parametrize(("method", "kind"), [("a_wait", "max_greenlets"), ("t_wait", "threads")])
def test_a_held_call_is_cancelled(make_rig: Callable[..., Rig], method: str, kind: str) -> None:
    """It never begins; those behind it do."""
    rig = make_rig(**{kind: 1, "thread_queue": 0})
    peer = rig.connect()
    first = peer.post(method, "first")
    until(lambda: rig.service.began == ["first"])
    held = peer.post("rpc.call", method, ["held"], {"timeout": 60})
    plain = peer.post(method, "plain")
    last = peer.post(method, "last")
    cancel(peer, held)
    cancel(peer, plain)
    assert sorted(peer.wait(2)) == [[held, CANCELLED, None], [plain, CANCELLED, None]]
    for name in ("first", "last"):
        rig.service.open(name)
        rig.service.gate(name).open()
    assert sorted(peer.wait(4))[:1] + sorted(peer.wait(4))[3:] == [[first, None, "first"], [last, None, "last"]]
    assert rig.service.began == ["first", "last"]
    quiet(rig)
    assert rig.engine.calls == rig.engine.begun


@pytest.mark.parametrize("waiting", [0, 3])
@pytest.mark.parametrize("service", [Gated, Bounded], ids=["greenlets", "threads"])
def test_a_cancellation_needs_no_greenlet(waiting: int, service: Any) -> None:
    """When calls hold all of them, it is what frees one; also behind calls that wait for theirs."""
    rig = Rig(service(), max_greenlets=2)
    try:
        peer, other = rig.connect(), rig.connect()
        held = [peer.post("wait", "a"), other.post("wait", "b")]
        settle()
        for number in range(waiting):
            peer.post("echo", number)
        settle()
        cancel(other, held[0] + 7)
        cancel(peer, held[0])
        cancel(other, held[1])
        assert [held[0], CANCELLED, None] in peer.wait(1 + waiting)
        assert other.wait(1) == [[held[1], CANCELLED, None]]
        together = [peer.post("wait", name) for name in "cdef"]
        for msgid in together:
            cancel(peer, msgid)
        assert sorted(peer.wait(5 + waiting)[1 + waiting :]) == [[msgid, CANCELLED, None] for msgid in together]
        quiet(rig)
    finally:
        rig.close()


def test_a_thread_that_goes_on_is_lost(make_rig: Callable[..., Rig]) -> None:
    """The caller is answered at once, and a second call has another thread."""
    rig = make_rig(threads=2)
    peer = rig.connect()
    msgid = peer.post("t_wait", "stuck")
    until(lambda: rig.service.began == ["stuck"])
    cancel(peer, msgid)
    assert peer.wait(1) == [[msgid, CANCELLED, None]]
    assert peer.call("t_echo", 1) == 1
    rig.service.gate("stuck").open()
    quiet(rig)


class Leaving(Bounded):
    """Methods whose calls end when their caller has gone, and one whose calls do not."""

    @rpccluster.rpc(cancel_on_disconnect=True)
    def c_hold(self) -> None:
        self.hold()

    @rpccluster.rpc(cancel_on_disconnect=True)
    async def c_a_hold(self) -> None:
        await self.a_hold()

    @rpccluster.rpc(cancel_on_disconnect=True, thread=True)
    def c_t_hold(self) -> None:
        call = rpccluster.current_call()
        assert call is not None
        self.began.append("t_hold")
        while not call.cancelled:
            time.sleep(0.001)
        self.errors.append("t_hold")

    @rpccluster.rpc(cancel_on_disconnect=True)
    def c_echo(self, value: Any) -> Any:
        self.began.append(value)
        return value

    @rpccluster.rpc(cancel_on_disconnect=False)
    def never(self, name: str) -> Any:
        return self.wait(name)


GONE = "Cancelled: the connection of the caller has ended"


@pytest.fixture
def leaving() -> Iterator[Rig]:
    rig = Rig(Leaving(), max_greenlets=4)
    yield rig
    rig.service.open_all()
    rig.close()


@pytest.mark.parametrize("end", ["shut", "close", "broken"])
@pytest.mark.parametrize("method", ["c_hold", "c_a_hold", "c_t_hold"])
@pytest.mark.parametrize("has_deadline", [False, True], ids=["plain", "bounded"])
def test_a_call_ends_when_its_caller_has_gone(leaving: Rig, method: str, end: str, has_deadline: bool) -> None:
    """Where its method says so; the others run on, and are answered to a peer that still reads."""
    rig = leaving
    peer = rig.connect()
    msgid = peer.post("rpc.call", method, [], {"timeout": 60}) if has_deadline else peer.post(method)
    peer.post("never", "on")
    until(lambda: len(rig.service.began) == 2)
    if end == "broken":
        peer.connection.close()
    elif end == "close":
        peer.close()
    else:
        peer.shut()
    seen = {"c_hold": f"{GONE} True"}.get(method, method[2:])
    until(lambda: rig.service.errors == [seen], "the method ends")
    assert rig.service.ended == []
    rig.service.open("on")
    until(lambda: rig.service.ended == ["on"])
    if end == "shut":
        assert peer.wait(2) == [[msgid, GONE, None], [msgid + 1, None, "on"]]
    quiet(rig)


def test_what_waits_for_its_turn_is_not_begun_when_its_caller_has_gone(leaving: Rig) -> None:
    rig = leaving
    holds, peer = rig.connect(), rig.connect()
    for _ in range(4):
        holds.post("wait", "a")
    until(lambda: len(rig.service.began) == 4)
    peer.post("c_echo", "late")
    peer.post("echo", "runs")
    settle()
    peer.shut()
    settle()
    rig.service.open("a")
    assert peer.wait(2) == [[1, GONE, None], [2, None, "runs"]]
    assert rig.service.began[4:] == ["runs"]


def test_the_option_holds_where_the_mark_says_nothing(leaving: Rig) -> None:
    rig = leaving
    rig.registry.wrap_all(0, True)
    peer = rig.connect()
    peer.post("hold")
    peer.post("never", "on")
    until(lambda: len(rig.service.began) == 2)
    peer.shut()
    assert peer.wait(1) == [[1, GONE, None]]
    rig.service.open("on")
    assert peer.wait(2)[1] == [2, None, "on"]
