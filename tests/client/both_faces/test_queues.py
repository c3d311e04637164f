"""The verbs of a queue by both faces, against a keeper in memory: what is sent, what comes back, what is repeated."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rpccluster import Queue, aio
from rpccluster.errors import (
    CallTimeout,
    ConnectFailed,
    LeaseLost,
    NoSuchQueue,
    NotSent,
    QueueDown,
    QueueFull,
    RPCClusterError,
)
from rpccluster.testing import wait_until

from ..made_up_keeper import Keeper, keeping
from ..servers import Server


class Blocking:
    """An object of the asyncio face, used as one of the other face is; its loop runs in a thread."""

    def __init__(self, inner: Any, run: Any) -> None:
        self._inner = inner
        self._run = run

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._method(found) if inspect.iscoroutinefunction(found) else found

    def _method(self, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if "ack" in kwargs:
                kwargs["ack"] = [item._inner for item in kwargs["ack"]]
            args = tuple(
                [each._inner for each in arg] if isinstance(arg, list) and is_ours(arg) else arg for arg in args
            )
            return self._wrapped(self._run(method(*args, **kwargs)))

        return call

    def _wrapped(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._wrapped(each) for each in value]
        return Blocking(value, self._run) if isinstance(value, aio.Item) else value

    def __enter__(self) -> Any:
        self._run(self._inner.__aenter__())
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._run(self._inner.__aexit__(*error))


def is_ours(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Blocking)


class Bench:
    """A keeper, its server, and queues of one face."""

    def __init__(self, keeper: Keeper, server: Server, make: Any) -> None:
        self.keeper = keeper
        self.server = server
        self.make = make
        self.queue = make()

    def calls(self, method: str) -> list[Any]:
        return [params for name, params in self.keeper.seen if name == method]


@pytest.fixture(params=["threads", "asyncio"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        keeper, server = stack.enter_context(keeping())
        run = stack.enter_context(loop_in_a_thread()) if request.param == "asyncio" else None

        def make(name: str = "jobs", **options: Any) -> Any:
            options = {"timeout": 10, **options}
            made: Any = Queue(server.address, name, **options)
            if run is not None:
                made = Blocking(aio.Queue(server.address, name, **options), run)
            stack.callback(made.close)
            return made

        yield Bench(keeper, server, make)


@contextlib.contextmanager
def loop_in_a_thread() -> Iterator[Any]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


# -- what goes well


def test_an_item_goes_through(bench: Bench) -> None:
    """Value, id and attempt; acked, it is gone."""
    id = bench.queue.put({"a": [1, b"x", None]})
    item = bench.queue.get()
    assert (item.value, item.id, item.attempt) == ({"a": [1, b"x", None]}, id, 1)
    item.ack()
    assert bench.queue.get(0) is None
    assert bench.queue.stats() == {"ready": 0, "leased": 0, "waiting": 0, "paused": False}


def test_options_go_as_they_were_given(bench: Bench) -> None:
    """Those that were not given stay away; session and number are the client's."""
    bench.queue.put(1)
    bench.queue.put(2, delay=1.5, priority=9, expires=60, dedup_id="d", group="g", timeout=3, token=7)
    bench.queue.put_many([3, 4], priority=1, dedup_id="e")
    (plain, given, many) = (params[2] for params in [*bench.calls("queue.put"), *bench.calls("queue.put_many")])
    assert plain.keys() == {"session", "seq"}
    assert 2 < given.pop("timeout") <= 3
    expected = {"delay": 1.5, "priority": 9, "expires": 60, "dedup_id": "d", "group": "g", "token": 7}
    assert {key: value for key, value in given.items() if key not in plain} == expected
    assert many.keys() == {"session", "seq", "priority", "dedup_id"}
    assert [params["seq"] for params in (plain, given, many)] == [1, 2, 3]


def test_a_get_waits_for_a_put(bench: Bench) -> None:
    """A parked get is answered later."""
    with ThreadPoolExecutor() as pool:
        got = pool.submit(bench.queue.get)
        wait_until(lambda: bench.keeper.parked, what="the get is parked")
        bench.make().put("x")
        assert got.result(10).value == "x"


def test_many_at_once(bench: Bench) -> None:
    """A get takes as many as there are, and acks may go together."""
    assert bench.queue.put_many([]) == []
    ids = bench.queue.put_many(range(5))
    items = bench.queue.get_many(10)
    assert [item.id for item in items] == ids
    bench.queue.ack(items)
    assert bench.queue.stats()["leased"] == 0


def test_an_ack_travels_with_the_next_get(bench: Bench) -> None:
    """One call for both."""
    bench.queue.put_many([1, 2])
    first = bench.queue.get()
    second = bench.queue.get(ack=[first])
    assert bench.calls("queue.get")[-1][1]["ack"] == [[first.id, 1]]
    assert bench.calls("queue.ack") == []
    assert bench.queue.get(0, ack=[second]) is None
    assert bench.queue.stats()["leased"] == 0


def test_a_block_acks_its_item_or_gives_it_back(bench: Bench) -> None:
    """By how it ends; the error goes along."""
    bench.queue.put("x")
    with pytest.raises(ValueError, match="no good"), bench.queue.get():
        raise ValueError("no good")
    assert bench.keeper.nacked == [{"error": "ValueError: no good"}]
    with bench.queue.get() as item:
        assert item.attempt == 2
    with bench.queue.get(0) or contextlib.nullcontext():
        pass
    assert bench.queue.stats()["leased"] == 0


def test_a_block_leaves_what_was_done_in_it(bench: Bench) -> None:
    """An item that was acked or given back in the block is not touched again."""
    bench.queue.put("x")
    with bench.queue.get() as item:
        item.nack(delay=0)
    with bench.queue.get() as item:
        item.ack()
    assert len(bench.calls("queue.ack")) == 1


def test_task_done_and_join(bench: Bench) -> None:
    """As of a queue.Queue: the oldest item that is held; too often is a ValueError; join waits for all."""
    bench.queue.put_many([1, 2])
    first, second = bench.queue.get(), bench.queue.get()
    with pytest.raises(CallTimeout):
        bench.queue.join(0.05)
    bench.queue.task_done()
    assert list(bench.keeper.leased) == [(second.id, 1)]
    with ThreadPoolExecutor() as pool:
        joined = pool.submit(bench.queue.join)
        wait_until(lambda: len(bench.keeper.joins) == 2, what="the join waits")
        bench.queue.task_done()
        assert joined.result(10) is None
    with pytest.raises(ValueError, match="too many times"):
        bench.queue.task_done()
    assert first.id < second.id


def test_an_operators_verbs(bench: Bench) -> None:
    """Peek, dead, retry, purge, pause and resume."""
    id = bench.queue.put("x")
    assert bench.queue.peek() == [(id, 0, "x")]
    for _ in range(5):
        bench.queue.get().nack(error="bad")
    assert bench.queue.dead() == [(id, 5, "x", "bad")]
    assert bench.queue.dead()[0].error == "bad"
    assert (bench.queue.retry(id), bench.queue.retry()) == (1, 0)
    bench.queue.get().nack(error="hopeless", dead=True)
    assert bench.queue.dead() == [(id, 1, "x", "hopeless")]
    assert (bench.queue.retry(), bench.queue.purge()) == (1, 1)
    bench.queue.pause()
    bench.queue.resume()


# -- what is refused


@pytest.mark.parametrize("bad", [object(), {1, 2}, 2**64, -(2**63) - 1, [2**70], {"x": {3}}, 1j], ids=lambda _: "")
def test_what_messagepack_has_not_is_a_type_error(bench: Bench, bad: Any) -> None:
    """At the put, and nothing leaves; never pickle."""
    with pytest.raises(TypeError, match="no MessagePack value"):
        bench.queue.put(bad)
    with pytest.raises(TypeError, match="no MessagePack value"):
        bench.queue.put_many([1, bad])
    assert bench.keeper.seen == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"priority": 10}, ValueError),
        ({"priority": -1}, ValueError),
        ({"priority": "9"}, TypeError),
        ({"delay": -1}, ValueError),
        ({"delay": float("nan")}, ValueError),
        ({"expires": float("inf")}, ValueError),
        ({"expires": "1"}, TypeError),
        ({"dedup_id": b"d"}, TypeError),
        ({"group": b"g"}, TypeError),
        ({"token": True}, TypeError),
    ],
    ids=lambda each: str(each),
)
def test_options_that_are_none(bench: Bench, options: dict[str, Any], error: type[Exception]) -> None:
    """Refused before anything leaves."""
    with pytest.raises(error, match="found "):
        bench.queue.put(1, **options)
    assert bench.keeper.seen == []


def test_a_value_above_the_clients_limit(bench: Bench) -> None:
    """Refused here, and the connection goes on."""
    queue = bench.make(max_message_size=1000)
    with pytest.raises(ValueError, match="max_message_size"):
        queue.put(b"x" * 1000)
    assert queue.put(b"x" * 900)


def test_a_value_above_the_keepers_limit(bench: Bench) -> None:
    """The keeper is asked once, before the first large value."""
    bench.keeper.limit = 100_000
    for _ in range(2):
        with pytest.raises(ValueError, match="max_message_size of the keeper"):
            bench.queue.put("x" * 99_500)
    bench.queue.put("x" * 90_000)
    with pytest.raises(ValueError, match="max_message_size of the keeper"):
        bench.queue.put_many(["x" * 40_000] * 3)
    assert len(bench.calls("queue.list")) == 1


def test_errors_by_their_names(bench: Bench) -> None:
    """The keeper's errors are classes of their own."""
    with pytest.raises(NoSuchQueue, match=r"^nope$"):
        bench.make("nope").put(1)
    with pytest.raises(NoSuchQueue):
        bench.make("nope").get(1)
    bench.keeper.is_full = True
    with pytest.raises(QueueFull, match="no room"):
        bench.queue.put(1, timeout=0)
    bench.keeper.is_full = False
    assert bench.queue.put(1) == 1


def test_a_lease_that_was_lost(bench: Bench) -> None:
    """Its ack, nack and touch raise, and the item is nobody's here; in a block only an error of its own hides it."""
    bench.queue.put("x")
    item = bench.queue.get()
    bench.keeper.end_lease(item.id, 1)
    again = bench.make().get()
    for act in (item.touch, item.ack, item.nack):
        with pytest.raises(LeaseLost):
            act()
    again.touch()
    bench.keeper.end_lease(again.id, 2)
    with pytest.raises(KeyError), again:
        raise KeyError
    third = bench.queue.get()
    bench.keeper.end_lease(third.id, 3)
    with pytest.raises(LeaseLost), third:
        pass
    with pytest.raises(ValueError, match="too many times"):
        bench.queue.task_done()


def test_an_ack_that_travels_and_is_lost(bench: Bench) -> None:
    """The get takes no item, and the next one does."""
    bench.queue.put_many(["x", "y"])
    item = bench.queue.get()
    bench.keeper.leased.clear()
    with pytest.raises(LeaseLost):
        bench.queue.get(ack=[item])
    assert bench.queue.get().value == "y"


# -- what is repeated


def test_a_put_whose_reply_is_lost_is_put_once(bench: Bench) -> None:
    """It is repeated with the same number, and answered with the first id."""
    bench.keeper.loses = 3
    assert bench.queue.put("x") == 1
    assert {(params[2]["session"], params[2]["seq"]) for params in bench.calls("queue.put")} == {
        (bench.calls("queue.put")[0][2]["session"], 1)
    }
    assert len(bench.keeper.ready) == 1
    bench.keeper.loses = 7
    assert bench.queue.put_many(["y", "z"]) == [2, 3]
    assert len(bench.keeper.ready) == 3


def test_a_get_whose_reply_is_lost_brings_the_same_item(bench: Bench) -> None:
    """No other attempt, and no other item."""
    bench.queue.put_many([1, 2])
    bench.keeper.loses = 5
    item = bench.queue.get(5)
    assert (item.value, item.attempt, len(bench.keeper.leased)) == (1, 1, 1)


def test_a_parked_get_survives_the_keeper(bench: Bench) -> None:
    """It is parked again."""
    with ThreadPoolExecutor() as pool:
        got = pool.submit(bench.queue.get, None)
        first = wait_until(lambda: list(bench.keeper.parked), what="the get is parked")
        bench.server.cut()
        wait_until(lambda: bench.keeper.parked not in ([], first), what="the get is parked again")
        bench.make().put("x")
        assert got.result(10).value == "x"


def test_the_store_may_be_away(bench: Bench) -> None:
    """QueueDown is repeated within the timeout, with the same number."""
    bench.keeper.is_down = 3
    assert bench.queue.put("x") == 1
    impatient = bench.make(timeout=0.2)
    bench.keeper.is_down = 10_000
    with pytest.raises(QueueDown):
        impatient.put("y")
    bench.keeper.is_down = 0
    assert impatient.put("z") == 2
    assert len({params[2]["session"] for params in bench.calls("queue.put")}) == 3


def test_a_keeper_that_is_away_for_too_long(bench: Bench) -> None:
    """The error tells why, after the timeout; a get that would wait for ever ends, too."""
    queue = bench.make(timeout=0.2)
    bench.server.close()
    for act in (lambda: queue.put(1), lambda: queue.get(), lambda: queue.get(0.1), queue.stats):
        with pytest.raises(ConnectFailed):
            act()


def test_calls_at_once_have_sessions_of_their_own(bench: Bench) -> None:
    """Of one object; each session has one call at a time. The made-up keeper refuses numbers that go down."""
    with ThreadPoolExecutor(16) as pool:
        gets = [pool.submit(bench.queue.get) for _ in range(8)]
        wait_until(lambda: len(bench.keeper.parked) == 8, what="all are parked")
        puts = list(pool.map(bench.queue.put, range(100)))
        values = sorted(get.result(10).value for get in gets)
    assert sorted(puts) == list(range(1, 101))
    assert len(values) == len(set(values)) == 8
    assert len({params[1]["session"] for params in bench.calls("queue.get")}) == 8


def test_held_items_survive_a_lost_connection(bench: Bench) -> None:
    """A consumer that works, and calls nothing, says within a second or two that its session lives."""
    bench.queue.put_many([1, 2])
    item = bench.queue.get()
    session = bench.calls("queue.get")[-1][1]["session"]
    connections = bench.server.connections
    bench.server.cut()
    wait_until(lambda: bench.keeper.greeted == [session], what="the session came back")
    assert bench.server.connections == connections + 1
    item.ack()


def test_a_closed_queue(bench: Bench) -> None:
    """Its calls end at once, those that wait among them."""
    with ThreadPoolExecutor() as pool:
        got = pool.submit(bench.queue.get)
        wait_until(lambda: bench.keeper.parked, what="the get is parked")
        bench.queue.close()
        with pytest.raises(RPCClusterError):
            got.result(10)
    with pytest.raises(NotSent):
        bench.queue.put(1)
