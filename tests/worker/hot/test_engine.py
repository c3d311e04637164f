"""The engine on gevent's loop: calls that block hold nobody up, and whatever a method does is its caller's affair."""

from __future__ import annotations

import contextvars
import random
import sys
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import gevent.event
import msgpack
import pytest

from rpccluster.ipc.scoreboard import Cell, CommonCell
from rpccluster.protocol.codec import pack_response
from rpccluster.worker.current import present_call, present_method
from rpccluster.worker.hot.engine import SLICE_NS
from rpccluster.worker.hot.inbox import RECEIVE_BYTES, RECEIVE_LESS_BYTES
from rpccluster.worker.hot.runners import CLOCK_EVERY

from ..rig import Gated, Peer, Rig, settle, until, wait_read


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    """Makes rigs, which are closed at the end."""
    made: list[Rig] = []

    def make(service: Any = None, **options: Any) -> Rig:
        made.append(Rig(service, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """One with the defaults."""
    return make_rig()


# -- calls


def test_results_come_back(rig: Rig) -> None:
    """Each with its msgid."""
    peer = rig.connect()
    assert peer.call("echo", [1, "ä", b"x", None, {"a": 1}]) == [1, "ä", b"x", None, {"a": 1}]
    assert peer.call("rpc.ping") == "pong"
    assert set(peer.call("rpc.discover")) >= {"echo", "wait", "rpc.ping", "rpc.discover"}


def test_calls_that_do_not_block_are_answered_in_their_order(rig: Rig) -> None:
    """A thousand in one piece."""
    peer = rig.connect()
    for number in range(1000):
        peer.post("echo", number)
    assert peer.wait(1000) == [[number + 1, None, number] for number in range(1000)]


def test_a_msgid_may_repeat(rig: Rig) -> None:
    """Each request is answered."""
    peer = rig.connect()
    peer.send(b"\x94\x00\x05\xa4echo\x91\x01" * 3)
    assert peer.wait(3) == [[5, None, 1]] * 3


def test_calls_that_block_hold_nobody_up(rig: Rig) -> None:
    """Neither on their own connection nor on another; they are answered when they are done, in whatever order."""
    peer, other = rig.connect(), rig.connect()
    for number in range(50):
        peer.post("wait", number)
    peer.post("echo", "behind fifty")
    assert peer.wait(1) == [[51, None, "behind fifty"]]
    assert other.call("echo", "elsewhere") == "elsewhere"
    order = random.Random(1).sample(range(50), 50)
    for number in order:
        rig.service.open(number)
        until(lambda number=number: number in rig.service.ended)
    assert [reply[2] for reply in peer.wait(51)[1:]] == order


def test_calls_begin_in_the_order_in_which_they_came(rig: Rig) -> None:
    """Whether those before them block or not, whatever connection they came from."""
    peer = rig.connect()
    expected: list[Any] = []
    for number in range(200):
        peer.post("wait" if number % 3 else "echo", number)
        expected.append(number)
    until(lambda: len(rig.service.began) == 200)
    assert rig.service.began == expected
    rig.service.open(*range(200))
    assert len(peer.wait(200)) == 200


def test_one_that_goes_on_after_blocking_takes_no_turn_of_another(rig: Rig) -> None:
    """Many that block, wake, and block again, among many that do not: each is answered once."""

    def twice(name: Any) -> Any:
        gevent.sleep(0)
        gevent.sleep(0.001)
        return name

    rig = Rig(type("Service", (Gated,), {"twice": staticmethod(twice)})())
    peers = [rig.connect() for _ in range(5)]
    for number in range(100):
        for peer in peers:
            peer.post("twice" if number % 2 else "echo", number)
    for peer in peers:
        replies = peer.wait(100)
        assert sorted(reply[0] for reply in replies) == list(range(1, 101))
        assert all(reply[2] == reply[0] - 1 for reply in replies)
    rig.close()


def test_what_a_method_waits_for_is_handed_to_it(make_rig: Callable[..., Rig]) -> None:
    """Values and errors of gevent's own primitives come through."""
    result: Any = gevent.event.AsyncResult()
    failure: Any = gevent.event.AsyncResult()

    class Waiting:
        def value(self) -> Any:
            return result.get()

        def error(self) -> Any:
            return failure.get()

        def spawned(self) -> Any:
            return gevent.spawn(lambda: 7).get()

    peer = make_rig(Waiting()).connect()
    peer.post("value")
    peer.post("error")
    assert peer.call("spawned") == 7
    result.set({"a": 1})
    failure.set_exception(ValueError("late"))
    assert sorted(peer.wait(3)) == [[1, None, {"a": 1}], [2, "ValueError: late", None], [3, None, 7]]


def test_notifications_run_and_are_not_answered(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Nor are their errors, which go to the log; blocking or not."""
    peer = rig.connect()
    peer.notify("echo", "quiet")
    peer.notify("wait", "w")
    peer.notify("fail")
    peer.notify("nope")
    peer.notify("echo", 1, 2, 3)
    assert peer.call("echo", "last") == "last"
    assert rig.service.began == ["quiet", "w", "last"]
    rig.service.open("w")
    until(lambda: rig.service.ended == ["w"])
    assert peer.call("rpc.ping") == "pong"
    assert len(peer.replies) == 2
    assert "Method fail failed for 127.0.0.1:4711: RuntimeError: boom" in caplog.text
    assert (rig.cells[Cell.ERRORS], peer.connection.outbox.pending) == (3, 0)


# -- errors


class Raising:
    """Everything that a method may throw."""

    def system_exit(self) -> None:
        raise SystemExit(3)

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def greenlet_exit(self) -> None:
        raise gevent.GreenletExit

    def generator_exit(self) -> None:
        raise GeneratorExit

    def timeout(self) -> None:
        raise gevent.Timeout(1)

    def type_error(self) -> None:
        raise TypeError("mine")

    def key_error(self) -> None:
        raise KeyError("type_error")

    def recursion(self) -> None:
        self.recursion()

    def surrogate(self) -> None:
        raise ValueError("\ud800")

    def silent(self) -> None:
        class Silent(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        raise Silent

    def unpackable(self) -> object:
        return object()

    def too_large_a_number(self) -> int:
        return 2**64

    def lone_surrogate(self) -> str:
        return "\ud800"

    def endless(self) -> list[Any]:
        endless: list[Any] = []
        endless.append(endless)
        return endless

    def two(self, a: int, b: int) -> int:
        return a + b


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("nope",), "'nope' method not found"),
        (("_private",), "'_private' method not found"),
        (("two.__self__",), "'two.__self__' method not found"),
        (("",), "'' method not found"),
        (("system_exit",), "SystemExit: 3"),
        (("interrupt",), "KeyboardInterrupt: "),
        (("greenlet_exit",), "GreenletExit: "),
        (("generator_exit",), "GeneratorExit: "),
        (("timeout",), "Timeout: 1 second"),
        (("type_error",), "TypeError: mine"),
        (("key_error",), "KeyError: 'type_error'"),
        (("surrogate",), "ValueError: \\ud800"),
        (("silent",), "Silent: (its message cannot be had)"),
        (("recursion",), "RecursionError: "),
        (("unpackable",), "TypeError: "),
        (("too_large_a_number",), "OverflowError: "),
        (("lone_surrogate",), "UnicodeEncodeError: "),
        (("endless",), "ValueError: "),
        (("two",), "ArgumentError: "),
        (("two", 1), "ArgumentError: "),
        (("two", 1, 2, 3), "ArgumentError: "),
        (("two", 1, "x"), "TypeError: "),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_whatever_a_method_throws_is_an_error_reply(make_rig: Callable[..., Rig], call: Any, error: str) -> None:
    """The connection lives on, and so does the greenlet."""
    rig = make_rig(Raising())
    peer = rig.connect()
    for _ in range(3):
        with pytest.raises(RuntimeError) as raised:
            peer.call(*call)
        assert str(raised.value).startswith(error)
    assert peer.call("two", 1, 2) == 3
    assert rig.engine.active_calls == 0
    assert rig.engine.is_quiet
    assert (rig.cells[Cell.ERRORS], rig.cells[Cell.CALLS]) == (3, 4)


def test_no_traceback_crosses_the_wire(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It goes to the log, with the method's name and the caller's address."""
    with pytest.raises(RuntimeError) as raised:
        rig.connect().call("fail", "secret\nline")
    assert str(raised.value) == "RuntimeError: secret\nline"
    (record,) = caplog.records
    assert record.getMessage() == "Method fail failed for 127.0.0.1:4711: RuntimeError: secret\\nline"
    assert record.exc_info is not None


def test_unknown_methods_and_misfits_do_not_fill_the_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """They are the caller's faults."""
    peer = rig.connect()
    for call in (("nope",), ("spin",)):
        with pytest.raises(RuntimeError):
            peer.call(*call)
    assert caplog.records == []


def test_a_method_name_that_is_not_utf8_is_unknown(rig: Rig) -> None:
    """And comes back as the same bytes."""
    peer = rig.connect()
    peer.send(b"\x94\x00\x01\xa2\xff\xfe\x90")
    assert peer.wait(1) == [[1, "'\udcff\udcfe' method not found", None]]


def test_a_call_may_be_bounded(make_rig: Callable[..., Rig]) -> None:
    """Its caller gets a TimeoutError at the next switch; what does not switch goes on."""
    rig = make_rig(call_timeout=0.05)
    peer = rig.connect()
    with pytest.raises(RuntimeError, match=r"^TimeoutError: the call took longer than 0\.05 seconds$"):
        peer.call("wait", "for ever")
    assert peer.call("sleep", 0.001) == 0.001
    assert peer.call("spin", 0.1) is None
    assert peer.call("echo", 1) == 1
    assert rig.engine.active_calls == 0


# -- limits


def test_only_so_many_run_at_once(make_rig: Callable[..., Rig]) -> None:
    """max_greenlets: the others wait their turn, reading stops, and all are answered in the end."""
    rig = make_rig(max_greenlets=5)
    peer, other = rig.connect(), rig.connect()
    for number in range(40):
        peer.post("wait", number)
    until(lambda: len(rig.service.began) == 5)
    other.post("wait", "other")
    settle()
    assert rig.service.began == [0, 1, 2, 3, 4]
    assert rig.engine.is_full
    assert rig.cells[Cell.ACTIVE_CALLS] == 5
    rig.service.open(*range(40), "other")
    assert len(peer.wait(40)) == 40
    assert other.wait(1) == [[1, None, "other"]]
    assert rig.service.most_at_once == 5
    assert not rig.engine.is_full
    assert peer.call("echo", 1) == 1


def test_the_scoreboard_tells_since_when_all_greenlets_are_taken(make_rig: Callable[..., Rig]) -> None:
    """From the last one's call on, whether others wait or not; each call that ends makes room."""
    rig = make_rig(max_greenlets=2)
    peer = rig.connect()
    peer.post("wait", 1)
    assert peer.call("echo", "beside it") == "beside it"
    assert rig.cells[Cell.GREENLETS_TAKEN_AT] == 0
    peer.post("wait", 2)
    taken_at = until(lambda: rig.cells[Cell.GREENLETS_TAKEN_AT])
    assert rig.engine.running_methods() == {"wait": 2}
    peer.post("wait", 3)
    until(lambda: rig.engine.is_full)
    assert rig.cells[Cell.GREENLETS_TAKEN_AT] == taken_at
    rig.service.open(1)
    until(lambda: 3 in rig.service.began)
    until(lambda: rig.cells[Cell.GREENLETS_TAKEN_AT] > taken_at)
    rig.service.open(2, 3)
    peer.wait(4)
    assert rig.cells[Cell.GREENLETS_TAKEN_AT] == 0


def test_a_starved_worker_reads_no_further(make_rig: Callable[..., Rig]) -> None:
    """What it does not read stays with the kernel and its sender, whatever the connection."""
    rig = make_rig(max_greenlets=1)
    peers = [rig.connect() for _ in range(3)]
    peers[0].post("wait", "gate")
    until(lambda: rig.service.began)
    peers[0].post("echo", 0)
    wait_read(peers[0])
    for peer in peers:
        peer.post("echo", 1)
    settle()
    for peer in peers:
        peer.post("echo", 2)
    settle()
    for peer in peers:
        with pytest.raises(AssertionError, match="the worker reads"):
            wait_read(peer, 0.1)
    rig.service.open("gate")
    assert len(peers[0].wait(4)) == 4
    for peer in peers[1:]:
        assert len(peer.wait(2)) == 2


def test_a_long_queue_lets_the_loop_poll(make_rig: Callable[..., Rig]) -> None:
    """A drain that runs long gives way: a call that comes meanwhile does not wait for the whole queue."""
    rig = make_rig()
    flood, other = rig.connect(), rig.connect()
    for _ in range(400):
        flood.post("spin", 0.0005)
    until(lambda: rig.service.ended)
    assert other.call("echo", 1) == 1
    assert len(rig.service.ended) < 400
    assert len(flood.wait(400)) == 400


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="references are not counted here")
@pytest.mark.parametrize("size", [1, 100_000])
def test_what_was_called_with_is_not_kept(rig: Rig, size: int) -> None:
    """A greenlet that waits to be needed holds nothing of the last call, which may have been large."""
    rig.connect().call("echo", [b"x" * size])
    alike = [[b"x"]]
    assert sys.getrefcount(rig.service.began[0]) == sys.getrefcount(alike[0])


def test_a_connection_holds_nothing_of_a_large_call_that_took_its_time(make_rig: Callable[..., Rig]) -> None:
    """Though the turn was over with it, and so nobody came to the end of its batch."""

    class Slow(Gated):
        def take(self, data: bytes) -> None:
            self.spin(2 * SLICE_NS / 1e9)

    rig = make_rig(Slow())
    if rig.engine.name != "python":
        pytest.skip("waiting calls are bytes here")
    peer = rig.connect()
    peer.call("take", bytes(100_000))
    settle()
    batch = peer.connection.inbox._last_long
    assert batch is not None
    assert list(batch.__reduce__()[1][0]) == []


def test_what_ends_with_a_connection_is_worth_giving_back(rig: Rig) -> None:
    """Unread replies and an unfinished message are freed with it; so they are when the peer reads at last."""
    idle, reader, silent, torn = (rig.connect(buffer_bytes=4096) for _ in range(4))
    for peer in (reader, silent):
        peer.post("large", 3_000_000)
    torn.send(b"\x94\x00\x01\xa4echo\x91\xc6\x00\x01\x00\x00" + bytes(1000))
    until(lambda: reader.connection.outbox.unsent and silent.connection.outbox.unsent and torn.connection.inbox.partial)
    for ends in (lambda: reader.wait(1), silent.connection.close, torn.connection.close):
        rig.engine.has_handled_large()
        ends()
        until(rig.engine.has_handled_large, "it is noticed")
    rig.engine.has_handled_large()
    idle.connection.close()
    assert not rig.engine.has_handled_large()


@pytest.mark.parametrize("calls", [1000, 1], ids=["many calls", "a long one"])
def test_who_sends_little_does_not_wait_for_all_who_send_much(rig: Rig, calls: int) -> None:
    """For what is done in one turn of the loop at most; and the calls of each are begun in their order."""
    floods, light = [rig.connect() for _ in range(20)], rig.connect()
    padding: list[Any] = [] if calls > 1 else [{}] * 100_000
    for name, flood in enumerate(floods):
        packed = [msgpack.packb([0, 1, "echo", [[name, number, padding]]]) for number in range(calls)]
        flood.send(b"".join(packed))
        flood.post("echo", [name, calls, ""])
    while not rig.service.began:
        gevent.sleep(0)
    before = len(rig.service.began)
    light.call("echo", ["light"])
    assert rig.service.began.index(["light"]) - before < 20 * calls / 2
    until(lambda: len(rig.service.began) == 20 * (calls + 1) + 1)
    for name in range(20):
        assert [value[1] for value in rig.service.began if value[0] == name] == list(range(calls + 1))


def test_what_many_send_at_once_is_not_decoded_far_ahead(rig: Rig) -> None:
    """Some of each waits for its turn, and what is behind that in the kernel; nothing is lost."""
    message = msgpack.packb([0, 1, "echo", [1]])
    floods = [rig.connect() for _ in range(50)]
    for flood in floods:
        flood.send(message * 5000)
    most = 0
    while len(rig.service.began) < 50 * 5000:
        gevent.sleep(0)
        most = max(most, sum(flood.connection.outbox.pending for flood in floods))
        for flood in floods:
            flood.look()
    assert most < (RECEIVE_BYTES + 50 * RECEIVE_LESS_BYTES) // len(message)
    for flood in floods:
        assert flood.wait(5000) == [[1, None, 1]] * 5000


def test_a_long_message_arrives_while_many_send_much(rig: Rig) -> None:
    """In as large pieces as ever: it must be whole before message_timeout, and is not decoded before."""
    upload, floods = rig.connect(), [rig.connect() for _ in range(3)]
    upload.send(msgpack.packb([0, 1, "echo", [[1] * 150_000]]))
    message = msgpack.packb([0, 1, "spin", [0.001]])
    for flood in floods:
        flood.send(message * 100)
    until(lambda: upload.connection.outbox.pending or upload.look())
    turns = rig.service.ended.count("spin") / CLOCK_EVERY
    assert turns < 2 * 150_000 / RECEIVE_BYTES
    assert len(upload.wait(1)) == 1


def test_who_sends_much_is_served_beside_those_who_send_little(rig: Rig) -> None:
    """However many these are, and though each sends the next call at once."""
    floods, lights = [rig.connect() for _ in range(3)], [rig.connect() for _ in range(30)]

    def go_on(light: Peer) -> None:
        while rig.service.began.count("much") < 300:
            light.call("spin", 0.001)

    greenlets = [gevent.spawn(go_on, light) for light in lights]
    for flood in floods:
        flood.send(msgpack.packb([0, 1, "echo", ["much"]]) * 100)
    until(lambda: rig.service.began.count("much") == 300)
    assert rig.service.ended.count("spin") < 1000
    gevent.joinall(greenlets, raise_error=True)


def test_the_limit_of_calls_is_told_once(make_rig: Callable[..., Rig]) -> None:
    """When so many have ended; the worker serves on until it is told."""
    rig = make_rig(call_limit=5)
    peer = rig.connect()
    for number in range(4):
        peer.call("echo", number)
    assert rig.limit_reached == 0
    for number in range(20):
        peer.call("echo", number)
    assert rig.limit_reached == 1


def test_calls_that_still_run_do_not_count_as_ended(make_rig: Callable[..., Rig]) -> None:
    """Neither for the limit nor for `status`."""
    rig = make_rig(call_limit=2)
    peer = rig.connect()
    peer.post("wait", 1)
    peer.call("echo", 1)
    assert (rig.limit_reached, rig.cells[Cell.CALLS], rig.cells[Cell.ACTIVE_CALLS]) == (0, 1, 1)
    rig.service.open(1)
    peer.wait(2)
    until(lambda: rig.limit_reached == 1)
    assert (rig.cells[Cell.CALLS], rig.cells[Cell.ACTIVE_CALLS]) == (2, 0)


# -- contexts


def test_each_call_runs_in_a_fresh_context(make_rig: Callable[..., Rig]) -> None:
    """What one leaves in it no other sees: not the next in the same greenlet, not one that ran meanwhile."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    class Contextual(Gated):
        def swap(self, value: str) -> str:
            before = variable.get()
            variable.set(value)
            return before

        def hold(self, value: str) -> list[str]:
            before = variable.get()
            variable.set(value)
            self.wait(value)
            return [before, variable.get()]

    rig = make_rig(Contextual())
    peer = rig.connect()
    assert [peer.call("swap", str(number)) for number in range(5)] == ["unset"] * 5
    for number in range(5):
        peer.post("hold", f"h{number}")
    for _ in range(5):
        peer.post("swap", "x")
    assert [reply[2] for reply in peer.wait(10)[5:]] == ["unset"] * 5
    rig.service.open(*(f"h{number}" for number in range(5)))
    held = [reply[2] for reply in peer.wait(15)[10:]]
    assert sorted(held) == [["unset", f"h{number}"] for number in range(5)]
    assert peer.call("swap", "y") == "unset"
    assert variable.get() == "unset"


# -- what others see


def test_the_running_method_is_shown(make_rig: Callable[..., Rig]) -> None:
    """For the log line of a hung worker: by the scoreboard, and by the present greenlet when it is asked."""

    def running_method() -> int:
        return numbers.get(present_method(), 0)

    class Looking:
        def look(self) -> list[Any]:
            call = present_call()
            assert call is not None
            return [rig.cells[CommonCell.RUNNING], running_method(), call.message[-2]]

        def after_a_wait(self) -> int:
            gevent.sleep(0)
            return running_method()

    rig = make_rig(Looking())
    numbers = rig.registry.numbers
    peer = rig.connect()
    assert peer.call("look") == [numbers["look"], numbers["look"], "look"]
    assert peer.call("after_a_wait") == numbers["after_a_wait"]
    assert (rig.cells[CommonCell.RUNNING], running_method(), present_call()) == (0, 0, None)


def test_replies_of_one_turn_leave_together(rig: Rig) -> None:
    """One send for all: the peer finds them in one piece."""
    peer = rig.connect()
    peer.send(b"\x94\x00\x01\xa4echo\x91\x01" * 100)
    pieces = []

    def received() -> bool:
        try:
            pieces.append(peer.sock.recv(1 << 16))
        except BlockingIOError:
            return False
        return True

    until(received)
    assert pieces == [b"\x94\x01\x01\xc0\x01" * 100]


def test_a_reply_does_not_wait_for_a_later_call_that_spins(rig: Rig) -> None:
    """What has gathered is sent before a runner would keep it waiting behind a blocked one."""
    peer = rig.connect()
    peer.post("echo", "first")
    peer.post("wait", "blocked")
    assert peer.wait(1) == [[1, None, "first"]]
    rig.service.open("blocked")
    peer.wait(2)


# -- giving up


def give_up(rig: Rig) -> None:
    """As the worker does at graceful_timeout: in a callback of the loop."""
    gevent.get_hub().loop.run_callback(rig.engine.give_up, "over")


def test_giving_up_interrupts_what_runs(make_rig: Callable[..., Rig]) -> None:
    """Each caller gets `WorkerRetired`; a method's own handling of errors lets it through, its `finally` runs."""
    cleaned_up = []

    class Stubborn(Gated):
        def guarded(self) -> str:
            try:
                self.wait("guarded")
            except Exception:
                return "swallowed"
            finally:
                cleaned_up.append("guarded")
            return "went on"

    rig = make_rig(Stubborn())
    peers = [rig.connect() for _ in range(2)]
    for number in range(4):
        peers[0].post("wait", number)
    peers[1].post("guarded")
    peers[1].notify("wait", "nobody")
    until(lambda: len(rig.service.began) == 6)
    give_up(rig)
    assert sorted(peers[0].wait(4)) == [[msgid, "WorkerRetired: over", None] for msgid in range(1, 5)]
    assert peers[1].wait(1) == [[1, "WorkerRetired: over", None]]
    until(lambda: rig.engine.is_quiet)
    assert cleaned_up == ["guarded"]
    for peer in peers:
        assert peer.call("echo", 1) == 1
    assert len(peers[0].replies) == 5


def test_giving_up_reaches_those_behind_a_caller_who_is_gone(make_rig: Callable[..., Rig]) -> None:
    """One whose peer has reset its connection keeps no other from its answer; its own is dropped and counted."""
    rig = make_rig()
    gone, *others = (rig.connect(tcp=True) for _ in range(4))
    for peer in (gone, *others):
        peer.post("wait", "gate")
    until(lambda: len(rig.service.began) == 4)
    gone.reset()
    until(lambda: gone.connection.is_closed)
    give_up(rig)
    for peer in others:
        assert peer.wait(1) == [[1, "WorkerRetired: over", None]]
    until(lambda: rig.engine.is_quiet and rig.engine.dropped_replies == 1)


def test_giving_up_leaves_what_waits_in_the_queue(make_rig: Callable[..., Rig]) -> None:
    """Calls that have not begun are run, by whoever has the connection then; what is no call ends it, as always."""
    rig = make_rig(max_greenlets=1)
    peer, bad = rig.connect(), rig.connect()
    peer.post("wait", "gate")
    until(lambda: rig.service.began)
    peer.post("echo", "waits")
    bad.send(b"\x05\xc0\x90\x94\x01\x02\x03\x04")
    wait_read(peer)
    give_up(rig)
    assert peer.wait(2) == [[1, "WorkerRetired: over", None], [2, None, "waits"]]
    bad.wait_end()
    until(lambda: rig.engine.is_quiet)


# -- results


class Slow(dict):
    """A mapping that waits before it tells what it holds."""

    def items(self) -> Any:
        gevent.sleep(0.01)
        return super().items()


class Results:
    def slow(self, number: int) -> Any:
        return Slow({number: "x" * number})

    def late(self, number: int) -> Any:
        gevent.sleep(0.001 * number)
        return Slow({number: "y"})

    def echo(self, value: Any) -> Any:
        return value

    def large(self, size: int) -> bytes:
        return b"x" * size


def test_a_result_that_blocks_while_it_is_packed_mixes_with_no_other(make_rig: Callable[..., Rig]) -> None:
    """Whether those beside it come from the queue or have waited in their method."""
    rig = make_rig(Results())
    one, other = rig.connect(), rig.connect()
    expected: dict[int, Any] = {}
    for number in range(10):
        expected[one.post("slow", number)] = {number: "x" * number}
        expected[one.post("late", number)] = {number: "y"}
        other.post("echo", number)
    assert sorted(other.wait(10)) == [[number + 1, None, number] for number in range(10)]
    assert {msgid: (error, result) for msgid, error, result in one.wait(20)} == {
        msgid: (None, result) for msgid, result in expected.items()
    }


def test_a_result_larger_than_a_message_is_an_error(make_rig: Callable[..., Rig]) -> None:
    """Up to the limit it is sent; past it the caller is told, and the connection lives on."""
    peer = make_rig(Results(), max_message_size=100_000).connect()
    overhead = len(pack_response(1, None, b"x" * 90_000)) - 90_000
    assert peer.call("large", 100_000 - overhead) == b"x" * (100_000 - overhead)
    error = "ResultTooLarge: found a reply of 100001 bytes, expected at most 100000 (max_message_size)"
    with pytest.raises(RuntimeError) as raised:
        peer.call("large", 100_001 - overhead)
    assert str(raised.value) == error
    assert peer.call("echo", "x") == "x"


def test_a_light_batch_waits_behind_the_long_one_of_its_connection() -> None:
    """It would overtake it otherwise, since other long ones have their turn before."""
    rig = Rig()
    other, peer = rig.connect(), rig.connect()
    for each, name in ((other, "other"), (peer, "mine")):
        each.send(b"".join(msgpack.packb([0, number, "echo", [[name, number]]]) for number in range(100)))
        each.connection.inbox.receive()
    peer.send(msgpack.packb([0, 100, "echo", [["mine", 100]]]))
    peer.connection.inbox.receive()
    peer.wait(101)
    assert [number for name, number in rig.service.began if name == "mine"] == list(range(101))
    rig.close()
