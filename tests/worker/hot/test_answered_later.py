"""Calls that are answered later: like all others, but for the greenlet that they do not hold."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import msgpack
import pytest
from gevent.monkey import get_original

import rpccluster
from rpccluster.ipc.scoreboard import Cell

from ..rig import Gated, Peer, Rig, settle, until


class Mailbox(Gated):
    """Keeps what it has to answer until the test does."""

    def __init__(self) -> None:
        super().__init__()
        self.laters: dict[Any, rpccluster.Later] = {}
        self.over: list[Any] = []

    @rpccluster.rpc(later=True)
    def get(self, name: Any, *_: Any) -> Any:
        later = rpccluster.Later(on_over=lambda: self.over.append(name))
        self.laters[name] = later
        return later

    @rpccluster.rpc(later=True)
    def get_plain(self, name: Any) -> Any:
        self.laters[name] = later = rpccluster.Later()
        return later

    @rpccluster.rpc(later=True, name="take")
    def take_one(self, value: Any) -> Any:
        """Answers at once, or fails at once."""
        if value is None:
            raise KeyError("nothing")
        return value

    @rpccluster.rpc(later=True, timeout=0.05)
    def get_soon(self, name: Any) -> Any:
        return self.get(name)

    @rpccluster.rpc(later=True, timeout=0.05)
    def stubborn(self, name: Any) -> Any:
        """Is interrupted, and returns one all the same."""
        try:
            self.wait("for ever")
        except BaseException:
            return self.get(name)

    @rpccluster.rpc(later=True)
    def deaf(self, name: Any) -> Any:
        """Is interrupted, waits on for a moment, and returns one all the same."""
        try:
            self.wait("for ever")
        except BaseException:
            self.wait(name)
        return self.get(name)

    @rpccluster.rpc(later=True)
    def early(self, value: Any) -> Any:
        """Is answered before it has returned."""
        later = rpccluster.Later()
        assert later.reply(value)
        return later

    @rpccluster.rpc(later=True)
    def late_and_early(self, name: Any) -> Any:
        """Is answered before it has returned, and returns when its connection is closed."""
        later = rpccluster.Later()
        assert later.reply(name)
        self.wait(name)
        return later

    @rpccluster.rpc(later=True)
    def same(self) -> Any:
        """Returns the one that another call has returned."""
        return self.laters["same"]

    def unmarked(self) -> Any:
        return rpccluster.Later()

    @rpccluster.rpc(later=True)
    def after_a_wait(self, name: Any) -> Any:
        self.wait(name)
        return self.get(name)


LATE = "TimeoutError: the call took longer than 0.05 seconds"
plain_sleep = get_original("time", "sleep")


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(**options: Any) -> Rig:
        made.append(Rig(Mailbox(), **options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


def latency(peer: Peer) -> float:
    """How long a call takes now."""
    began = time.perf_counter()
    peer.call("echo", 1)
    return time.perf_counter() - began


def ended(rig: Rig) -> None:
    """Nothing is left of any call."""
    settle()
    assert rig.engine.is_quiet
    assert (rig.engine.active_calls, rig.cells[Cell.ACTIVE_CALLS]) == (0, 0)
    assert not list(rig.engine.running())


# -- the handle alone


def test_a_later_needs_no_worker() -> None:
    """Whoever tests a service gets one from its method: the first answer counts, the others are told so."""
    later = Mailbox().get("name")
    assert not later.is_over
    assert later.reply(1)
    assert later.is_over
    assert not later.reply(2)
    assert not later.fail(KeyError("late"))


def test_only_exceptions_are_failures() -> None:
    """A text alone has no name; nothing is answered then."""
    later = rpccluster.Later()
    with pytest.raises(TypeError, match="found str, expected an exception"):
        later.fail("boom")  # type: ignore[arg-type]
    assert not later.is_over


# -- answers


def test_a_call_is_answered_in_a_later_turn_of_the_loop(rig: Rig) -> None:
    """Calls beside it are answered first; until then it counts as one that runs."""
    peer = rig.connect()
    peer.post("get", "a")
    assert peer.call("echo", 2) == 2
    assert rig.engine.active_calls == rig.cells[Cell.ACTIVE_CALLS] == 1
    assert not rig.engine.is_quiet
    assert rig.service.laters["a"].reply({"value": [1]})
    assert peer.wait(2)[1] == [1, None, {"value": [1]}]
    ended(rig)
    assert rig.engine.calls == rig.cells[Cell.CALLS] == 2
    assert rig.cells[Cell.ERRORS] == 0
    assert rig.service.over == []


def test_errors_read_like_those_of_other_calls(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """What was failed with, a result that cannot be packed; each is counted and logged."""
    peer = rig.connect()
    for name in "abc":
        peer.post("get", name)
    settle()
    laters = rig.service.laters
    assert laters["a"].fail(RuntimeError("boom"))
    assert laters["b"].fail(TypeError("takes no such thing"))
    assert laters["c"].reply(object())
    assert peer.wait(3) == [
        [1, "RuntimeError: boom", None],
        [2, "TypeError: takes no such thing", None],
        [3, "TypeError: can not serialize 'object' object", None],
    ]
    assert rig.cells[Cell.ERRORS] == 3
    assert "Method get failed for 127.0.0.1:4711: RuntimeError: boom" in caplog.messages
    ended(rig)


def test_a_reply_may_be_too_large(make_rig: Callable[..., Rig]) -> None:
    """Like any other."""
    rig = make_rig(max_message_size=1000)
    peer = rig.connect()
    peer.post("get", "a")
    settle()
    rig.service.laters["a"].reply(b"x" * 1000)
    ((_, error, _),) = peer.wait(1)
    assert error.startswith("ResultTooLarge: found a reply of ")


def test_a_marked_method_may_answer_at_once(rig: Rig) -> None:
    """Or raise; its name is what the mark says; params that do not fit are its caller's error."""
    peer = rig.connect()
    assert peer.call("take", 1) == 1
    for params, error in [((None,), "KeyError: 'nothing'"), ((), "ArgumentError: "), ((1, 2), "ArgumentError: ")]:
        with pytest.raises(RuntimeError, match=f"^{error}"):
            peer.call("take", *params)
    assert peer.call("rpc.discover")["take"]["signature"] == "(value: Any) -> Any"
    assert peer.call("early", 3) == 3
    ended(rig)


def test_one_that_blocks_first(rig: Rig) -> None:
    """It holds its greenlet until it returns, and no longer."""
    peer = rig.connect()
    peer.post("after_a_wait", "a")
    assert peer.call("echo", 1) == 1
    rig.service.open("a")
    until(lambda: "a" in rig.service.laters)
    settle()
    assert rig.engine.active_calls == 1
    rig.service.laters["a"].reply("done")
    assert peer.wait(2)[1] == [1, None, "done"]
    ended(rig)


def test_it_must_be_marked(rig: Rig) -> None:
    """What is not looked for is a result that cannot be packed."""
    peer = rig.connect()
    with pytest.raises(RuntimeError, match="TypeError: can not serialize 'Later' object"):
        peer.call("unmarked")
    ended(rig)


def test_each_call_has_its_own(rig: Rig) -> None:
    """The second one that returns the same is answered with an error, whether the first is over or not."""
    peer = rig.connect()
    peer.post("get", "same")
    with pytest.raises(RuntimeError, match="RuntimeError: found the Later of another call"):
        peer.call("same")
    rig.service.laters["same"].reply(1)
    settle()
    with pytest.raises(RuntimeError, match="RuntimeError: found the Later of another call"):
        peer.call("same")
    assert peer.wait(3)[1] == [1, None, 1]
    ended(rig)


def test_native_threads_may_answer(rig: Rig) -> None:
    """Many at once, each of several threads trying all: every call has one answer, and nothing is looked for."""
    peer = rig.connect()
    count, start_new_thread = 300, get_original("_thread", "start_new_thread")
    for name in range(count):
        peer.post("get", name)
    until(lambda: len(rig.service.laters) == count)
    in_time: list[int] = []
    done: list[int] = []

    def answer(seed: int) -> None:
        names = list(range(count))
        random.Random(seed).shuffle(names)
        for name in names:
            if name % 3:
                in_time.extend([name] * rig.service.laters[name].reply([seed, name]))
            else:
                in_time.extend([name] * rig.service.laters[name].fail(KeyError(name)))
        done.append(seed)

    for seed in range(4):
        start_new_thread(answer, (seed,))
    replies = peer.wait(count)
    until(lambda: len(done) == 4)
    assert sorted(in_time) == list(range(count))
    for msgid, error, result in replies:
        name = msgid - 1
        assert error == (None if name % 3 else f"KeyError: {name}")
        assert name % 3 == 0 or result[1] == name
    settle()
    assert len(peer.look()) == count
    ended(rig)


def test_a_thread_that_is_sooner_than_the_methods_return(rig: Rig) -> None:
    """Whichever comes first, there is one answer."""

    class Soon(Mailbox):
        @rpccluster.rpc(later=True)
        def soon(self, value: Any) -> Any:
            later = rpccluster.Later()
            get_original("_thread", "start_new_thread")(later.reply, (value,))
            return later

    rig = Rig(Soon())
    peer = rig.connect()
    for number in range(200):
        peer.post("soon", number)
    assert sorted(peer.wait(200)) == [[number + 1, None, number] for number in range(200)]
    ended(rig)
    rig.close()


def test_whether_an_answer_was_in_time_is_true_for_its_caller(rig: Rig) -> None:
    """Threads answer at about the time at which the limits pass: who is told "in time" is who is answered."""
    peer = rig.connect()
    for name in range(2000):
        peer.post("get_soon", name)
    in_time: dict[int, bool] = {}

    def answer(names: Any) -> None:
        for name in names:
            while name not in rig.service.laters:
                plain_sleep(0.0001)
            if name % 50 == 0:
                plain_sleep(0.001)
            in_time[name] = rig.service.laters[name].reply(name)

    for half in range(2):
        get_original("_thread", "start_new_thread")(answer, (range(half, 2000, 2),))
    replies = peer.wait(2000)
    until(lambda: len(in_time) == 2000, "all have been answered, or were late")
    for msgid, error, result in replies:
        name = msgid - 1
        assert (error, result) == ((None, name) if in_time[name] else (LATE, None))
    until(lambda: len(rig.service.over) == sum(not was for was in in_time.values()), "those that are over were told so")
    ended(rig)


def test_notifications_get_no_answer(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It is dropped; until it comes they count as pending, and a failure is logged."""
    peer = rig.connect()
    peer.notify("get", "a")
    peer.notify("get", "b")
    settle()
    assert (peer.connection.outbox.pending, rig.engine.active_calls) == (2, 2)
    assert rig.service.laters["a"].reply("nobody hears it")
    assert rig.service.laters["b"].fail(RuntimeError("nobody hears it"))
    settle()
    assert peer.look() == []
    assert peer.connection.outbox.pending == 0
    assert "Method get failed for 127.0.0.1:4711: RuntimeError: nobody hears it" in caplog.messages
    ended(rig)


@pytest.mark.parametrize("name", [b"get", "get"], ids=["bin", "str"])
@pytest.mark.parametrize("size", [0, 100_000])
def test_however_the_call_was_sent(rig: Rig, name: Any, size: int) -> None:
    """A name of type bin, and params that are decoded late."""
    peer = rig.connect()
    peer.send(msgpack.packb([0, 7, name, ["a", b"x" * size]]))
    until(lambda: rig.service.laters)
    rig.service.laters["a"].reply(1)
    assert peer.wait(1) == [[7, None, 1]]
    ended(rig)


# -- the end without an answer


def test_time_limits_hold(rig: Rig) -> None:
    """The text is that of any call; what is answered afterwards is dropped, and the service knows."""
    peer = rig.connect()
    peer.post("get_soon", "a")
    assert peer.wait(1) == [[1, LATE, None]]
    settle()
    later = rig.service.laters["a"]
    assert later.is_over
    assert rig.service.over == ["a"]
    assert not later.reply("late")
    settle()
    assert len(peer.look()) == 1
    assert rig.limit_counts() == {"call_timeout": 1}
    ended(rig)


def test_a_limit_may_pass_before_the_method_returns(rig: Rig) -> None:
    """What it returns in spite of that is over."""
    peer = rig.connect()
    peer.post("stubborn", "a")
    assert peer.wait(1) == [[1, LATE, None]]
    settle()
    assert rig.service.over == ["a"]
    assert not rig.service.laters["a"].reply("late")
    assert rig.limit_counts() == {"call_timeout": 1}
    ended(rig)


def test_an_answer_in_time_ends_the_limit(make_rig: Callable[..., Rig]) -> None:
    """It is call_timeout where the mark names none."""
    rig = make_rig(call_timeout=0.05)
    peer = rig.connect()
    peer.post("get", "a")
    peer.post("get", "b")
    settle()
    rig.service.laters["a"].reply(1)
    assert peer.wait(2) == [[1, None, 1], [2, LATE, None]]
    assert rig.service.over == ["b"]
    assert rig.limit_counts() == {"call_timeout": 1}
    ended(rig)


def test_when_the_worker_ends(rig: Rig) -> None:
    """They are answered like calls that run."""
    peer = rig.connect()
    for name in range(3):
        peer.post("get", name)
    settle()
    rig.service.laters[0].reply(0)
    gevent.get_hub().loop.run_callback(rig.engine.give_up, "over")
    assert peer.wait(3) == [[1, None, 0], [2, "WorkerRetired: over", None], [3, "WorkerRetired: over", None]]
    settle()
    assert rig.service.over == [1, 2]
    assert not rig.service.laters[1].reply("late")
    ended(rig)


def test_many_are_given_up_in_several_turns_of_the_loop(rig: Rig) -> None:
    """Since each is logged, which takes its time; a call beside them is answered before the last of them."""
    count = 1000
    peer, other = rig.connect(), rig.connect()
    for name in range(count):
        peer.post("get_plain", name)
    until(lambda: rig.engine.active_calls == count)
    gevent.get_hub().loop.run_callback(rig.engine.give_up, "over")
    gevent.sleep(0)
    assert other.call("echo", 1) == 1
    assert rig.engine.active_calls > 0
    assert {error for _, error, _ in peer.wait(count)} == {"WorkerRetired: over"}
    ended(rig)


def test_what_a_method_returns_after_its_interruption_is_over(rig: Rig) -> None:
    """Nobody gives it up once more, and its worker would wait for it for ever."""
    peer = rig.connect()
    peer.post("deaf", "a")
    settle()
    gevent.get_hub().loop.run_callback(rig.engine.give_up, "over")
    settle()
    rig.service.open("a")
    assert peer.wait(1) == [[1, "WorkerRetired: over", None]]
    settle()
    assert rig.service.over == ["a"]
    ended(rig)
    assert peer.call("take", 1) == 1  # the interruption was of that call alone
    peer.post("get", "b")
    settle()
    rig.service.laters["b"].reply(2)
    assert peer.wait(3)[2] == [3, None, 2]


def test_what_a_service_makes_of_the_end_harms_nobody(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It may raise, or try to wait where it must not: a log line."""
    peer = rig.connect()
    for name in "ab":
        peer.post("get", name)
    settle()
    rig.service.laters["a"]._on_over = lambda: 1 / 0
    rig.service.laters["b"]._on_over = lambda: gevent.sleep(1)
    peer.connection.close()
    settle()
    assert caplog.messages == ["The function on_over of a Later failed"] * 2
    assert rig.connect().call("echo", 1) == 1
    ended(rig)


def test_a_connection_that_is_closed_drops_its_own(rig: Rig) -> None:
    """At once: a client that comes and goes leaves nothing in the worker, and its replies count as dropped."""
    peer, other = rig.connect(tcp=True), rig.connect()
    for name in range(5):
        peer.post("get", name)
    peer.notify("get", "n")
    other.post("get", "other")
    settle()
    peer.reset()
    until(lambda: peer.connection.is_closed)
    settle()
    assert rig.service.over == [0, 1, 2, 3, 4, "n"]
    assert rig.engine.dropped_replies == 5
    assert rig.engine.active_calls == rig.cells[Cell.ACTIVE_CALLS] == 1
    assert not rig.service.laters[3].reply("nobody")
    assert rig.service.laters["other"].reply(1)
    assert other.wait(1) == [[1, None, 1]]
    ended(rig)
    assert rig.engine.dropped_replies == 5


def test_a_connection_may_be_closed_before_the_method_returns(rig: Rig) -> None:
    """Then nobody waits for the answer from the beginning."""
    peer = rig.connect()
    peer.post("after_a_wait", "a")
    settle()
    peer.connection.close()
    rig.service.open("a")
    until(lambda: rig.service.over == ["a"])
    assert rig.service.laters["a"].is_over
    assert rig.engine.dropped_replies == 1
    ended(rig)
    other = rig.connect()
    other.post("late_and_early", "b")
    settle()
    other.connection.close()
    rig.service.open("b")
    until(lambda: rig.engine.dropped_replies == 2)
    ended(rig)


def test_after_a_clients_end_of_file_they_are_answered(rig: Rig) -> None:
    """Then the connection is closed."""
    peer = rig.connect()
    peer.post("get", "a")
    settle()
    peer.shut()
    settle()
    assert not peer.connection.is_closed
    rig.service.laters["a"].reply(1)
    peer.wait_end()
    assert peer.replies == [[1, 1, None, 1]]


def test_when_all_stops_they_are_waited_for(rig: Rig) -> None:
    """The last word on the connection names them."""
    peer = rig.connect()
    peer.post("rpc.closing")
    peer.post("get", "a")
    settle()
    rig.connections.stop_reading()
    assert peer.wait(1) == [[1, None, {"due": [2]}]]
    rig.service.laters["a"].reply(1)
    peer.wait_end()
    assert peer.replies[1:] == [[1, 2, None, 1]]


# -- limits and numbers


def test_they_count_as_pending_calls(make_rig: Callable[..., Rig]) -> None:
    """Past max_pending_calls the connection is not read, until half of them are answered."""
    rig = make_rig(max_pending_calls=10)
    peer, other = rig.connect(), rig.connect()
    for name in range(40):
        peer.post("get", name)
        settle()
    begun = len(rig.service.laters)
    assert 11 <= begun < 40
    assert other.call("echo", 1) == 1
    for name in range(40):
        until(lambda name=name: name in rig.service.laters)  # type: ignore[misc]
        rig.service.laters[name].reply(name)
    assert peer.wait(40) == [[name + 1, None, name] for name in range(40)]


def test_they_hold_no_greenlet(make_rig: Callable[..., Rig]) -> None:
    """max_greenlets bounds what runs; and the call that is parked leaves nothing in the next one's context."""
    rig = make_rig(max_greenlets=1)
    peer = rig.connect()
    for name in range(100):
        peer.post("get", name)
    assert peer.call("echo", 1) == 1
    assert rig.engine.active_calls == 100
    assert not rig.engine.is_full
    for name in range(100):
        rig.service.laters[name].reply()
    assert len(peer.wait(101)) == 101
    ended(rig)


COUNT = 20_000


@pytest.mark.parametrize("connections", [1, 500])
def test_many_parked_calls_hold_up_no_other(make_rig: Callable[..., Rig], connections: int, capsys: Any) -> None:
    """Nor do they take much memory; all are answered in the end."""
    tracemalloc = pytest.importorskip("tracemalloc")  # PyPy has none
    rig = make_rig(max_pending_calls=COUNT, call_timeout=600)
    peers, other = [rig.connect() for _ in range(connections)], rig.connect()
    other.call("echo", 0)
    for each in peers:
        each.call("echo", 0)
    longest = 0.0
    for number in range(COUNT):
        if number == COUNT // 2:  # from here on it is the memory that is measured
            until(lambda: rig.engine.active_calls == COUNT // 2)
            gc.collect()
            tracemalloc.start()
        peers[number % connections].post("get_plain", number)
        if number % 100 == 0 and number < COUNT // 2:
            longest = max(longest, latency(other))
    until(lambda: rig.engine.active_calls == COUNT, "all are parked")
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    bytes_each = size / (COUNT - COUNT // 2)
    for _ in range(50):
        longest = max(longest, latency(other))
    before = sum(len(each.replies) for each in peers)
    laters = rig.service.laters
    random.Random(1).shuffle(names := list(laters))
    for place, name in enumerate(names):
        assert laters.pop(name).reply(name)
        if place % 100 == 0:
            longest = max(longest, latency(other))
    for each in peers:
        until(lambda each=each: len(each.look()) == 1 + COUNT // connections)  # type: ignore[misc]
    assert before == connections
    ended(rig)
    with capsys.disabled():
        print(f" {bytes_each:.0f} bytes a parked call, the slowest call beside them took {longest * 1000:.1f} ms")
    assert bytes_each < 1024
    assert longest < 1


def test_a_connection_that_moves_is_looked_at_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that gives some of its connections away lists their requests, however many the others have parked."""
    peers = [rig.connect() for _ in range(3)]
    for number, each in enumerate(peers):
        each.post("get", number)
        each.notify("get", f"n{number}")
        each.post("wait", number)
    settle()
    monkeypatch.setattr(rig.engine._parked, "_all", lambda: pytest.fail("it looks at all"))
    first, last = peers[0].connection.outbox, peers[2].connection.outbox
    assert rig.engine.running_msgids([first, last]) == {first: [1, 2], last: [1, 2]}
    monkeypatch.undo()
    rig.service.open(0, 1, 2)
    for number in range(3):
        rig.service.laters[number].reply(number)
    settle()
    assert rig.engine.running_msgids([first]) == {first: []}
