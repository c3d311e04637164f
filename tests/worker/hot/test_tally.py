"""Calls are counted by method and by what their caller is told, whichever way they go through the engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import msgpack
import pytest

from rpccluster import NotLeader, rpc
from rpccluster.ipc.fdpass import memory_file
from rpccluster.metrics.layout import BUCKETS, OK, WORD, Block, OwnCell
from rpccluster.metrics.row import Row
from rpccluster.metrics.totals import Reader, Totals
from rpccluster.service import Later
from rpccluster.worker.tally import Tally

from ..rig import Gated, Peer, Rig, settle, until


class Service(Gated):
    """Methods of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.laters: list[Later] = []

    @rpc(later=True)
    def later(self) -> Later:
        self.laters.append(Later())
        return self.laters[-1]

    @rpc(thread=True)
    def threaded(self, fails: bool = False) -> int:
        return 1 // (not fails)

    async def coroutine(self) -> int:
        return 1

    @rpc(timeout=0.05)
    def late(self) -> None:
        gevent.sleep(5)

    def refuse(self) -> None:
        raise NotLeader("none")

    def unpackable(self) -> Any:
        return object()


class Counted:
    """A rig that counts, and a peer of it."""

    def __init__(self, file: int, **options: Any) -> None:
        self.service = Service()
        self.row = Row(file)
        self.rig = Rig(self.service, counts=self.row, **options)
        self.peer: Peer = self.rig.connect()
        self._reader = Reader(file)

    def totals(self) -> Totals:
        return self._reader.read()

    def outcomes(self) -> dict[str, dict[str, int]]:
        """How often calls of each method have ended how, as far as any has."""
        return {
            name: {outcome: count for outcome, count in calls.outcomes.items() if count}
            for name, calls in self.totals().methods().items()
            if any(calls.outcomes.values())
        }

    def timed(self, name: str) -> int:
        """How many calls of a method have a duration."""
        return self.totals().methods()[name].durations.total


@pytest.fixture
def counted() -> Iterator[Callable[..., Counted]]:
    """What makes a rig that counts."""
    made: list[Counted] = []
    file = memory_file(name="metrics")

    def make(**options: Any) -> Counted:
        made.append(Counted(file, **options))
        return made[-1]

    yield make
    for each in made:
        each.rig.close()
    os.close(file)


def test_results_are_counted_and_timed(counted: Callable[..., Counted]) -> None:
    it = counted()
    for number in range(5):
        assert it.peer.call("echo", number) == number
    for _ in range(100):
        it.peer.post("echo", 1)
    until(lambda: len(it.peer.look()) == 105)
    it.peer.call("spin", 0.003)
    assert it.outcomes() == {"echo": {"ok": 105}, "spin": {"ok": 1}}
    calls = it.totals().methods()
    assert calls["echo"].durations.total == 105
    assert calls["spin"].durations.seconds >= 0.003
    assert it.totals().queued.total == 106


def test_a_sum_that_is_full_begins_anew(counted: Callable[..., Counted]) -> None:
    """And no call fails for that, whichever way it goes."""
    it = counted()
    it.row.own[OwnCell.QUEUE] = WORD
    for name, params in (("echo", [1]), ("threaded", []), ("coroutine", [])):
        cells = it.row.block(Block.METHOD, name)
        cells[OK] = WORD
        assert it.peer.call(name, *params) == 1
        assert cells[OK] < WORD
    assert it.outcomes() == {name: {"ok": 1} for name in ("echo", "threaded", "coroutine")}


def test_what_takes_another_way_is_counted_too(counted: Callable[..., Counted]) -> None:
    it = counted(max_message_size=100_000)
    large = msgpack.ExtType(1, b"x" * 10)
    assert it.peer.call("echo", large) == large
    it.peer.notify("echo", 1)
    assert len(it.peer.call("large", 80_000)) == 80_000
    with pytest.raises(Exception, match="ResultTooLarge"):
        it.peer.call("large", 200_000)
    with pytest.raises(Exception, match="can not serialize"):
        it.peer.call("unpackable")
    until(lambda: it.outcomes()["echo"] == {"ok": 2})
    assert it.outcomes() == {"echo": {"ok": 2}, "large": {"ok": 1, "error": 1}, "unpackable": {"error": 1}}
    assert it.timed("large") == 2


def test_blocked_calls_are_timed_from_their_begin(counted: Callable[..., Counted]) -> None:
    it = counted()
    it.peer.post("wait", "a")
    it.peer.post("echo", 1)
    until(lambda: len(it.peer.look()) == 1)
    assert it.outcomes() == {"echo": {"ok": 1}}
    gevent.sleep(0.03)
    it.service.open("a")
    until(lambda: len(it.peer.look()) == 2)
    assert it.outcomes() == {"echo": {"ok": 1}, "wait": {"ok": 1}}
    took = {name: totals.durations.seconds for name, totals in it.totals().methods().items()}
    assert took["wait"] >= 0.03
    assert took["echo"] < took["wait"]


def test_errors_are_counted_by_what_they_tell(counted: Callable[..., Counted]) -> None:
    it = counted()
    for method, params, text in [
        ("fail", [], "boom"),
        ("late", [], "TimeoutError"),
        ("refuse", [], "NotLeader"),
        ("echo", [1, 2, 3], "ArgumentError"),
    ]:
        with pytest.raises(Exception, match=text):
            it.peer.call(method, *params)
    assert it.peer.call("echo", 1) == 1
    assert it.outcomes() == {
        "echo": {"ok": 1, "error": 1},
        "fail": {"error": 1},
        "late": {"timeout": 1},
        "refuse": {"refused": 1},
    }
    assert (it.timed("refuse"), it.timed("late"), it.timed("fail")) == (0, 1, 1)
    assert it.totals().methods()["late"].durations.seconds >= 0.05


def test_unknown_methods_are_one(counted: Callable[..., Counted]) -> None:
    it = counted()
    for number in range(20):
        with pytest.raises(Exception, match="not found"):
            it.peer.call(f"no_{number}")
        with pytest.raises(Exception, match="not found"):
            it.peer.call("rpc.call", f"no_{number}", [], {})
    assert it.outcomes() == {"other": {"error": 40}}


def test_the_method_named_inside_counts(counted: Callable[..., Counted]) -> None:
    it = counted()
    assert it.peer.call("rpc.call", "echo", [7], {"timeout": 5}) == 7
    with pytest.raises(Exception, match="TimeoutError"):
        it.peer.call("rpc.call", "sleep", [5], {"timeout": 0.02})
    with pytest.raises(Exception, match="TimeoutError"):
        it.peer.call("rpc.call", "echo", [7], {"timeout": -1})
    with pytest.raises(Exception, match="boom"):
        it.peer.call("rpc.call", "fail", [], {})
    with pytest.raises(Exception, match="ArgumentError"):
        it.peer.call("rpc.call", "rpc.call", [], {})
    assert it.outcomes() == {
        "echo": {"ok": 1, "timeout": 1},
        "sleep": {"timeout": 1},
        "fail": {"error": 1},
        "rpc.call": {"error": 1},
    }


def test_calls_that_are_answered_later(counted: Callable[..., Counted]) -> None:
    it = counted()
    for _ in range(3):
        it.peer.post("later")
    until(lambda: len(it.service.laters) == 3)
    it.service.laters[0].reply(1)
    it.service.laters[1].fail(ValueError("no"))
    assert it.peer.call("threaded") == 1
    with pytest.raises(Exception, match="ZeroDivisionError"):
        it.peer.call("threaded", True)
    assert it.peer.call("coroutine") == 1
    until(lambda: len(it.peer.look()) == 5)
    assert it.outcomes() == {
        "later": {"ok": 1, "error": 1},
        "threaded": {"ok": 1, "error": 1},
        "coroutine": {"ok": 1},
    }
    it.peer.connection.close()
    until(lambda: it.outcomes()["later"] == {"ok": 1, "error": 1, "cancelled": 1})
    assert it.timed("later") == 3


def test_cancelled_calls(counted: Callable[..., Counted]) -> None:
    it = counted(max_greenlets=1, threads=8)
    running, waiting = it.peer.post("wait", "a"), it.peer.post("echo", 1)
    until(lambda: it.service.began == ["a"])
    it.peer.notify("rpc.cancel", waiting)
    it.peer.notify("rpc.cancel", running)
    until(lambda: len(it.peer.look()) == 2)
    found = it.outcomes()
    assert found.pop("rpc.cancel")["ok"] >= 2
    assert found == {"wait": {"cancelled": 1}, "echo": {"cancelled": 1}}


def test_a_call_that_was_answered_without_its_method_counts_once(counted: Callable[..., Counted]) -> None:
    it = counted()
    it.peer.post("wait", "a")
    until(lambda: it.service.began == ["a"])
    gevent.get_hub().loop.run_callback(it.rig.engine.give_up, "it is over")
    until(lambda: len(it.peer.look()) == 1)
    it.service.open("a")
    settle()
    assert it.outcomes() == {"wait": {"lost": 1}}


def test_the_wait_for_a_turn_is_counted(counted: Callable[..., Counted]) -> None:
    it = counted()
    it.peer.post("spin", 0.05)
    for _ in range(3):
        it.peer.post("echo", 1)
    until(lambda: len(it.peer.look()) == 4)
    queued = it.totals().queued
    assert queued.total == 4
    assert queued.seconds >= 3 * 0.05
    assert sum(queued.buckets[BUCKETS // 2 - 2 :]) >= 3


def test_a_call_that_was_held_back_has_waited_since_it_came(counted: Callable[..., Counted]) -> None:
    it = counted(max_greenlets=1)
    it.peer.post("wait", "a")
    it.peer.post("echo", 1)
    until(lambda: it.service.began == ["a"])
    gevent.sleep(0.05)
    it.service.open("a")
    until(lambda: len(it.peer.look()) == 2)
    assert it.totals().queued.total == 2
    assert it.totals().queued.seconds >= 0.04


def test_limits_and_moves_are_carried_over(counted: Callable[..., Counted]) -> None:
    it = counted()
    tally = it.rig.engine._room.tally
    assert isinstance(tally, Tally)
    tally.note_handover(0.25)
    it.rig.cells[19] += 3
    tally.carry_over()
    it.rig.cells[19] += 1
    tally.carry_over()
    assert it.totals().handovers.total == 1
    assert it.totals().handovers.seconds == pytest.approx(0.25)
    assert {name: cells[0] for (kind, name), cells in it.totals().blocks.items() if kind.value == "l"} == {
        "max_message_size": 4
    }
