"""Code of the service that waits, raises or goes on where none of it is expected: the engine is none the worse."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import logging
import sys
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import msgpack
import pytest
from gevent.exceptions import BlockingSwitchOutError

from rpccluster.worker import current

from ..rig import Gated, Rig, settle, until


@pytest.fixture
def make_rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    """Makes rigs, which are closed at the end; an interrupted method has half a second for its clean-up."""
    monkeypatch.setattr(current, "GRACE_SECONDS", 0.5, raising=False)
    made: list[Rig] = []

    def make(service: Any = None, **options: Any) -> Rig:
        made.append(Rig(service, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()
    gc.collect()  # here: what waits when it is forgotten would else do so in a call of the next test


@pytest.fixture
def waiting_handler() -> Iterator[logging.Handler]:
    """A log handler of the service's that waits, as one does that sends its lines over TCP."""

    class Waiting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            gevent.sleep(0.005)

    handler = Waiting()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


class Wait:
    """Waits when it is forgotten."""

    def __del__(self) -> None:
        gevent.sleep(0.002)


class Strange(Exception):
    """Nothing of it can be had."""

    __class__ = property(lambda self: 1 / 0)  # type: ignore[assignment]

    def __str__(self) -> str:
        gevent.sleep(0.002)
        raise SystemExit


class Signature:
    """What a method says of its parameters."""

    def __get__(self, obj: Any, kind: Any = None) -> Any:
        gevent.sleep(0.002)
        raise KeyboardInterrupt


class Misfit:
    __signature__ = Signature()

    def __call__(self) -> None:
        raise TypeError("mine")


class Odd(Gated):
    """Methods with which something waits or raises that should not."""

    variable: Any = contextvars.ContextVar("variable")
    misfit = Misfit()

    def strange(self) -> None:
        raise Strange

    def leaves_in_context(self, value: Any) -> Any:
        self.variable.set(Wait())
        return value

    def result(self, value: Any) -> Any:
        class Items(dict):  # type: ignore[type-arg]
            kept = Wait()

            def items(self) -> Any:
                gevent.sleep(0.001)
                return super().items()

        return Items(value=value)


def test_a_malformed_request_and_a_handler_that_waits(
    make_rig: Callable[..., Rig], waiting_handler: logging.Handler
) -> None:
    """What others have sent with it is answered, all of it, each once."""
    rig = make_rig()
    peers = [rig.connect() for _ in range(9)]
    for round_ in range(3):
        bad = rig.connect()
        for peer in peers:
            peer.sock.send(b"".join(msgpack.packb([0, msgid, "echo", [msgid]]) for msgid in range(1, 51)))
        bad.sock.send(msgpack.packb([0, 1, ["no", "name"], []]) * 3)
        for peer in peers:
            peer.sock.send(b"".join(msgpack.packb([0, msgid, "echo", [msgid]]) for msgid in range(51, 101)))
        for peer in peers:
            got = sorted(peer.wait(100 * (round_ + 1))[100 * round_ :])
            assert got == [[msgid, None, msgid] for msgid in range(1, 101)]
        bad.wait_end()
    until(lambda: rig.engine.is_quiet)
    assert all(peer.connection.outbox.pending == 0 for peer in peers)


def test_a_result_too_large_and_a_handler_that_waits(
    make_rig: Callable[..., Rig], waiting_handler: logging.Handler
) -> None:
    """It does not go out, nor does the error take another reply's place."""
    rig = make_rig(max_message_size=10_000)
    peer = rig.connect()
    for _ in range(20):
        peer.post("large", 20_000)
        peer.post("echo", "x")
    replies = sorted(peer.wait(40))
    assert [reply[0] for reply in replies] == list(range(1, 41))
    assert all(reply[2] == "x" for reply in replies[1::2])
    assert all(reply[1].startswith("ResultTooLarge: found a reply of 200") for reply in replies[::2])
    until(lambda: rig.engine.is_quiet)


def test_whatever_waits_or_raises_in_between(make_rig: Callable[..., Rig], waiting_handler: logging.Handler) -> None:
    """An exception's class and text, a signature, a value's items, its end: each call is answered, once."""
    rig = make_rig(Odd())
    peers = [rig.connect() for _ in range(3)]
    methods = ("strange", "misfit", "leaves_in_context", "result", "echo")
    for number in range(60):
        for peer in peers:
            method = methods[number % len(methods)]
            peer.post(method, *([] if method in ("strange", "misfit") else [number]))
    for peer in peers:
        replies = sorted(peer.wait(60))
        assert [reply[0] for reply in replies] == list(range(1, 61))
        for number, (_, error, result) in enumerate(replies):
            expected = [
                ("Strange: (its message cannot be had)", None),
                ("TypeError: mine", None),
                (None, number),
                (None, {"value": number}),
                (None, number),
            ][number % 5]
            assert (error, result) == expected
    until(lambda: rig.engine.is_quiet)


def test_a_fault_of_the_engine_costs_one_connection(make_rig: Callable[..., Rig]) -> None:
    """The greenlets that run calls outlive whatever may be raised."""
    rig = make_rig()
    peer, other = rig.connect(), rig.connect()
    rig.engine._runners._slow_path.failed = lambda *_: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    peer.post("fail")
    peer.wait_end()
    assert other.call("echo", 1) == 1
    until(lambda: rig.engine.is_quiet)


# -- time limits


class Stubborn(Gated):
    """Methods that do not like to end."""

    def retry(self, kind: str) -> str:
        """Goes on after errors, as code that speaks to others over a network does."""
        caught = {"OSError": OSError, "Exception": Exception}[kind]
        for _ in range(50):
            try:
                gevent.sleep(0.1)
            except caught:
                self.began.append("again")
        return "done"

    def clean_up(self) -> str:
        """Has something to do at its end."""
        try:
            gevent.sleep(30)
        finally:
            for _ in range(3):
                gevent.sleep(0.005)
            self.ended.append("cleaned up")
        return "done"

    def never_mind(self, name: str) -> str:
        """Goes on whatever happens, until the test says so."""
        while name not in self.gates:
            try:
                gevent.sleep(0.02)
            except BaseException as error:
                self.began.append(type(error).__name__)
        self.ended.append(name)
        return "too late"

    def instead(self) -> str:
        """Makes something else of it."""
        try:
            gevent.sleep(30)
        except BaseException:
            raise KeyError("mine") from None
        return "done"


LATE = "TimeoutError: the call took longer than 0.05 seconds"


@pytest.mark.parametrize("kind", ["OSError", "Exception"])
def test_a_time_limit_ends_what_catches_errors(make_rig: Callable[..., Rig], kind: str) -> None:
    """At once."""
    rig = make_rig(Stubborn(), call_timeout=0.05)
    peer = rig.connect()
    peer.post("retry", kind)
    assert peer.wait(1) == [[1, LATE, None]]
    assert rig.service.began == []


def test_a_time_limit_leaves_time_to_clean_up(make_rig: Callable[..., Rig]) -> None:
    """One interruption, not one after another; whatever the method makes of it, its caller is told of the limit."""
    rig = make_rig(Stubborn(), call_timeout=0.05)
    peer = rig.connect()
    peer.post("clean_up")
    assert peer.wait(1) == [[1, LATE, None]]
    assert rig.service.ended == ["cleaned up"]
    peer.post("instead")
    assert peer.wait(2)[1] == [2, LATE, None]
    assert rig.limit_counts() == {"call_timeout": 2}


def test_whoever_goes_on_past_its_grace_is_answered_for(
    make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    """Once; what it returns later is dropped, and its connection is as ever. Notifications likewise."""
    rig = make_rig(Stubborn(), call_timeout=0.05)
    peer = rig.connect()
    peer.post("never_mind", "a")
    peer.notify("never_mind", "a")
    assert peer.wait(1) == [[1, LATE, None]]
    until(lambda: rig.engine.active_calls == 0)
    assert (peer.connection.outbox.pending, list(rig.engine.running())) == (0, [])
    assert rig.engine.is_quiet
    assert "Method never_mind goes on after its interruption" in caplog.text
    rig.service.open("a")
    until(lambda: rig.service.ended == ["a", "a"])
    assert peer.call("echo", 1) == 1
    assert (len(peer.replies), peer.connection.outbox.pending, rig.engine.active_calls) == (2, 0, 0)
    assert set(rig.service.began) == {"CallTimedOut", 1}


def test_giving_up_interrupts_once(make_rig: Callable[..., Rig]) -> None:
    """However often it is asked for: a method has its time for `finally`, and then its caller is answered."""
    rig = make_rig(Stubborn())
    peer = rig.connect()
    peer.post("clean_up")
    peer.post("never_mind", "a")
    until(lambda: rig.engine.active_calls == 2)
    loop = gevent.get_hub().loop
    again = loop.timer(0.0, 0.005)
    again.start(rig.engine.give_up, "over")
    try:
        assert peer.wait(2) == [[1, "WorkerRetired: over", None], [2, "WorkerRetired: over", None]]
        assert rig.service.ended == ["cleaned up"]
        assert 1 <= rig.service.began.count("WorkerRetired") <= 3
        until(lambda: rig.engine.is_quiet)
    finally:
        again.stop()
        again.close()
        rig.service.open("a")
    until(lambda: "a" in rig.service.ended)


def test_what_is_thrown_into_a_greenlet_that_has_nothing_to_do_ends_it_not(make_rig: Any) -> None:
    """A call left a time limit running, or its greenlet to be killed later: the next calls are served as ever."""

    class Leaves:
        def leave(self) -> None:
            gevent.spawn_later(0, gevent.kill, gevent.getcurrent(), KeyError("too late"))

        def echo(self, value: Any) -> Any:
            return value

    rig = make_rig(Leaves(), max_greenlets=1)
    peer = rig.connect()
    for number in range(3):
        peer.call("leave")
        settle()
        assert peer.call("echo", number) == number
    assert rig.engine.active_calls == 0


def test_a_finalizer_that_waits_amid_a_message(make_rig: Any) -> None:
    """Each new list of a param may collect garbage whose finalizer waits: the calls behind it run, and it runs once."""
    waits: list[int] = []

    class Circle:
        def __init__(self) -> None:
            self.own = self

        def __del__(self) -> None:
            waits.append(1)
            with contextlib.suppress(BlockingSwitchOutError):  # collected in the hub, where nothing may wait
                gevent.sleep(0.005)

    class Leaves(Gated):
        def take(self, number: int, many: Any) -> int:
            self.began.append(number)
            Circle()
            return number

    rig = make_rig(Leaves())
    peer, other = rig.connect(), rig.connect()
    settle()
    many, before = [[number] for number in range(400)], gc.get_threshold()
    beside = gevent.spawn(lambda: [(gevent.sleep(0.001), other.call("echo", "beside")) for _ in range(100)])
    gc.set_threshold(40)  # collects within each message
    try:
        peer.send(b"".join(msgpack.packb([0, msgid, "take", [msgid, many]]) for msgid in range(20)))
        peer.wait(20)
        beside.get()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    until(lambda: rig.engine.is_quiet)
    assert len(waits) == 20
    assert sorted(reply[1:] for reply in peer.look()) == [[msgid, None, msgid] for msgid in range(20)]
    assert sorted(call for call in rig.service.began if call != "beside") == list(range(20))


@pytest.fixture
def wait_amid() -> Iterator[Callable[[str], None]]:
    """Lets each collection of garbage in a function of that name wait, as a finalizer may."""
    before, wanted = gc.get_threshold(), [""]

    def wait(phase: str, info: dict[str, int]) -> None:
        frame = sys._getframe().f_back  # None where C has begun it
        is_there = phase == "start" and frame is not None and frame.f_code.co_name in wanted
        if is_there and gevent.getcurrent() is not gevent.get_hub():
            gevent.sleep(0.001)

    def begin(where: str) -> None:
        wanted[:] = [where]
        gc.set_threshold(1)

    gc.callbacks.append(wait)
    yield begin
    gc.set_threshold(*before)
    gc.callbacks.remove(wait)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython has such callbacks")
@pytest.mark.parametrize("where", ["flush", "put", "retire", "_run"])
def test_garbage_is_collected_amid_the_engines_own_steps(make_rig: Any, wait_amid: Any, where: str) -> None:
    """Whatever a runner is at when its next object is made: each call runs once, each reply leaves once, and whole."""
    rig = make_rig(max_greenlets=5)
    peers = [rig.connect(tcp=True, buffer_bytes=20_000) for _ in range(20)]
    sizes = [70_000, 10, 70_001, 600, 10]
    wait_amid(where)
    packed = b"".join(msgpack.packb([0, number, "large", [size]]) for number, size in enumerate(sizes))
    for peer in peers:
        peer.send(packed)
    for peer in peers:
        peer.wait(len(sizes))
        found = sorted((msgid, error, len(result)) for _, msgid, error, result in peer.look())
        assert found == [(number, None, size) for number, size in enumerate(sizes)]
    assert sorted(rig.service.began) == sorted(len(peers) * sizes)
    until(lambda: rig.engine.is_quiet, "no runner is lost")
