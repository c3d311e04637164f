"""What an operator asks of a pool: its numbers, whether anybody serves, and a bound on the calls that wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from rpccluster.client import Client, Pool, aio
from rpccluster.client.core.choice import Choice
from rpccluster.client.core.waiting import Waiting
from rpccluster.errors import CallTimeout, ConnectFailed, ConnectionLost, Lost, NotSent, TooManyWaiting
from rpccluster.testing import wait_until

from ..servers import Server, reply, requests, serve


class Gate:
    """A server that answers when it is told to."""

    def __init__(self) -> None:
        self.is_open = threading.Event()

    def handle(self, sock: socket.socket) -> None:
        for message in requests(sock):
            if message[0] == 0:
                self.is_open.wait(20)
                sock.sendall(reply(message[1], "answered"))


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.is_open.set()


@pytest.fixture
def gated(gate: Gate) -> Iterator[Server]:
    with serve(gate.handle) as server:
        yield server


@pytest.fixture
def dead() -> str:
    """An address at which nothing listens."""
    with serve() as server:
        return server.address


# -- stats


def test_the_numbers_of_a_pool(server: Server, dead: str) -> None:
    """Before the first call, while calls are pending, and after a failure: for each address, and in all."""
    with Pool([server.address, dead], connections=2, connect_timeout=5) as pool:
        nothing = {"connections": 0, "pending": 0, "failures": 0, "set_aside_seconds": 0.0}
        assert pool.stats() == {
            "waiting": 0,
            "refused": 0,
            "connections": 0,
            "pending": 0,
            "failures": 0,
            "set_aside": 0,
            "addresses": {server.address: nothing, dead: nothing},
        }
        assert [pool.call("sum", 1) for _ in range(4)] == [1] * 4
        futures = [pool.call_async("sleep", 60) for _ in range(3)]
        stats = wait_until(lambda: stats if (stats := pool.stats())["pending"] == 3 else None)
        assert (stats["waiting"], stats["refused"], stats["set_aside"]) == (3, 0, 1)
        assert stats["connections"] == stats["addresses"][server.address]["connections"] in (1, 2)
        assert stats["addresses"][server.address]["pending"] == 3
        row = stats["addresses"][dead]
        assert (row["connections"], row["pending"]) == (0, 0)
        assert stats["failures"] == row["failures"] >= 1 and row["set_aside_seconds"] > 0
        for future in futures:
            future.cancel()
        assert pool.stats()["waiting"] == 0


def test_the_numbers_on_asyncio(server: Server, dead: str) -> None:
    """The same there."""

    async def main() -> None:
        async with aio.Pool([server.address, dead], connections=2) as pool:
            assert set(pool.stats()["addresses"]) == {server.address, dead}
            assert [await pool.call("sum", 1) for _ in range(4)] == [1] * 4
            tasks = [pool.call_async("sleep", 60) for _ in range(3)]
            while pool.stats()["pending"] < 3:
                await asyncio.sleep(0)
            stats = pool.stats()
            assert (stats["waiting"], stats["refused"], stats["set_aside"]) == (3, 0, 1)
            assert stats["addresses"][dead]["failures"] >= 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert (pool.stats()["waiting"], pool.stats()["pending"]) == (0, 0)

    asyncio.run(main())


def test_how_long_an_address_has_been_set_aside() -> None:
    """From its first failure on, however often it fails, until it is reached; a suspect until it has answered."""
    choice = Choice(1)
    assert choice.aside_seconds(0, 1.0) == 0.0
    choice.failed(0, 1.0)
    choice.failed(0, 2.0)
    assert (choice.aside_seconds(0, 5.0), choice.times_set_aside[0]) == (4.0, 2)
    choice.reached(0)
    assert choice.aside_seconds(0, 6.0) == 0.0
    choice.timed_out(0, 7.0)
    choice.reached(0)
    assert choice.aside_seconds(0, 9.0) == 2.0
    choice.pinged(0, True, 9.0)
    assert (choice.aside_seconds(0, 9.0), choice.times_set_aside[0]) == (0.0, 3)


# -- wait


def test_wait_returns_when_a_server_serves(server: Server, dead: str, gated: Server) -> None:
    """One address is enough: neither one that refuses nor one that is silent holds it up."""
    with Pool([dead, gated.address, server.address]) as pool:
        pool.wait(20)
        assert pool.stats()["pending"] == 0 and pool.stats()["waiting"] == 0


def test_wait_for_a_server_that_is_started_later() -> None:
    """It is asked again and again until it listens, and until it answers."""
    with serve() as server:
        name, address = server.name, server.address
    with Pool(address) as pool, contextlib.ExitStack() as stack:
        pingable, asked = pool._members.pingable, threading.Semaphore(0)

        def note(address: int) -> list[Client]:
            asked.release()
            return pingable(address)

        pool._members.pingable = note  # type: ignore[method-assign]

        def start() -> None:
            for _ in range(3):
                asked.acquire(timeout=20)
            stack.enter_context(serve(at=name))

        thread = threading.Thread(target=start)
        thread.start()
        pool.wait(20)
        thread.join()


def test_wait_on_asyncio_for_a_server_that_is_started_later() -> None:
    """The same there."""
    with serve() as server:
        name, address = server.name, server.address

    async def main() -> None:
        async with aio.Pool(address) as pool:
            pingable, asked = pool._members.pingable, asyncio.Semaphore(0)

            def note(address: int) -> list[aio.Client]:
                asked.release()
                return pingable(address)

            pool._members.pingable = note  # type: ignore[method-assign]
            waits = asyncio.ensure_future(pool.wait(20))
            for _ in range(3):
                await asyncio.wait_for(asked.acquire(), 20)
            with serve(at=name):
                await waits

    asyncio.run(main())


def test_wait_ends_in_time(dead: str, gated: Server) -> None:
    """The error is `ConnectFailed`, and tells of each address why."""
    with Pool([dead, gated.address]) as pool:
        with pytest.raises(ConnectFailed, match=r"no server answered within 0.2 seconds: .*") as info:
            pool.wait(0.2)
        assert f"{gated.address}: no answer" in str(info.value) and dead in str(info.value)
        assert pool.pending == 0


def test_wait_ends_with_the_pool(gated: Server) -> None:
    """Closing it ends the wait, and a closed pool waits for nobody."""
    pool = Pool(gated.address)
    closer = threading.Thread(target=lambda: (wait_until(lambda: pool.pending), pool.close()))
    closer.start()
    with pytest.raises(NotSent, match="closed"):
        pool.wait(20)
    closer.join()
    with pytest.raises(NotSent, match="closed"):
        pool.wait(20)


def test_wait_on_asyncio(server: Server, dead: str, gated: Server) -> None:
    """The same there."""

    async def main() -> None:
        async with aio.Pool([dead, gated.address, server.address]) as pool:
            await pool.wait(20)
            assert pool.stats()["pending"] == 0 and pool.stats()["waiting"] == 0
        with pytest.raises(NotSent, match="closed"):
            await pool.wait(20)
        async with aio.Pool([dead, gated.address]) as pool:
            with pytest.raises(ConnectFailed, match=r"no server answered within 0.2 seconds: .*") as info:
                await pool.wait(0.2)
            assert pool.pending == 0
            assert f"{gated.address}: no answer" in str(info.value) and dead in str(info.value)
            waits = asyncio.ensure_future(pool.wait(20))
            while not pool.pending:
                await asyncio.sleep(0)
            await pool.close()
            with pytest.raises(NotSent, match="closed"):
                await waits

    asyncio.run(main())


def test_wait_for_a_ping_that_cannot_be_sent(server: Server) -> None:
    """A pool whose messages may not even hold a ping has no server that answers: both faces say why."""

    async def main() -> None:
        async with aio.Pool(server.address, max_message_size=5) as pool:
            await pool.wait(20)

    with pytest.raises(ValueError, match="max_message_size"), Pool(server.address, max_message_size=5) as pool:
        pool.wait(20)
    with pytest.raises(ValueError, match="max_message_size"):
        asyncio.run(main())


# -- max_waiting


def test_the_bound_on_waiting(gate: Gate, gated: Server) -> None:
    """One call more than may wait ends at once, whichever way it is made; when one has ended there is room again."""
    with Pool(gated.address, max_waiting=3) as pool:
        futures: list[Future[object]] = [pool.call_async("x") for _ in range(2)]
        with ending(pool) as thread:
            wait_until(lambda: pool.stats()["waiting"] == 3)
            with pytest.raises(TooManyWaiting, match="found 3 calls waiting and 1 more, expected at most 3"):
                pool.call("x")
            with pytest.raises(TooManyWaiting):
                pool.notify("x")
            with pytest.raises(TooManyWaiting), pool.batch() as batch:
                batch.call("x")
            assert isinstance(pool.call_async("x").exception(0), TooManyWaiting)
            assert pool.stats()["refused"] == 4
            gate.is_open.set()
            thread.join(20)
        assert [future.result(20) for future in futures] == ["answered"] * 2
        wait_until(lambda: pool.stats()["waiting"] == 0)
        assert pool.call("x") == "answered"
        assert pool.stats()["waiting"] == 0


@contextlib.contextmanager
def ending(pool: Pool) -> Iterator[threading.Thread]:
    """A thread that calls once, and ends."""
    thread = threading.Thread(target=pool.call, args=("x",))
    thread.start()
    try:
        yield thread
    finally:
        thread.join(20)


def test_a_batch_counts_as_its_calls(server: Server) -> None:
    """It is sent whole or not at all, and is not counted on once it has ended."""
    with Pool(server.address, max_waiting=10) as pool:
        with pytest.raises(TooManyWaiting, match="found 0 calls waiting and 11 more"), pool.batch() as batch:
            calls = [batch.call("sum", 1) for _ in range(11)]
        with pytest.raises(TooManyWaiting):
            calls[0].result()
        assert pool.stats()["refused"] == 11
        with pool.batch() as batch:
            calls = [batch.call("sum", 1) for _ in range(10)]
        assert batch.results() == [1] * 10
        assert pool.stats()["waiting"] == 0


def test_calls_that_fail_are_counted_out(dead: str, gated: Server) -> None:
    """Without a connection, without a reply, and with params that cannot be packed."""
    with Pool(dead, max_waiting=1) as pool:
        for _ in range(3):
            with pytest.raises(ConnectFailed):
                pool.call("sum", 1)
            with pytest.raises(TypeError):
                pool.call_async("sum", object())
            future = pool.call_async("sum", 1)
            with pytest.raises(ConnectFailed):
                future.result(20)
            wait_until(lambda: pool.stats()["waiting"] == 0)
    with Pool(gated.address, max_waiting=1) as pool:
        for _ in range(2):
            with pytest.raises(CallTimeout):
                pool.call("x", timeout=0.02)


def test_a_future_is_counted_out_before_anyone_learns_of_its_end(gate: Gate, gated: Server) -> None:
    """So whoever waits for one may make the next call at once, however few may wait."""
    counts: list[int] = []
    with Pool(gated.address, max_waiting=3) as pool:

        class Waiter:
            """What `concurrent.futures.wait` puts on a future."""

            def note(self, _: object) -> None:
                counts.append(pool.stats()["waiting"])

            add_result = add_exception = add_cancelled = note

        futures = [pool.call_async("x", timeout=timeout) for timeout in (20, 0.02, 20)]
        for future in futures:
            future._waiters.append(Waiter())  # type: ignore[attr-defined]
        futures[0].cancel()
        with pytest.raises(CallTimeout):
            futures[1].result(20)
        gate.is_open.set()
        assert futures[2].result(20) == "answered"
    assert counts == [2, 1, 0]


def test_a_future_whose_connection_ended_sets_the_address_aside(server: Server) -> None:
    """As a call does; and the next reply takes it back, also over a connection that was open all the time."""
    with Pool(server.address) as pool:
        pool.wait(20)
        with pytest.raises(Lost):
            pool.call_async("die").result(20)
        assert (pool.stats()["failures"], pool.stats()["set_aside"]) == (1, 1)
        assert pool.call("sum", 1) == 1
        pool._members.failed(0)
        assert pool.call_async("sum", 1).result(20) == 1
        assert (pool.stats()["failures"], pool.stats()["set_aside"]) == (2, 0)


def test_a_child_counts_anew(gate: Gate, gated: Server) -> None:
    """The calls that waited at a fork are the parent's."""
    with Pool(gated.address, max_waiting=2) as pool, ending(pool):
        future = pool.call_async("x")
        wait_until(lambda: pool.stats()["waiting"] == 2)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if pool.stats()["waiting"] == 0 and pool._waiting.most == 2 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert pool.stats()["waiting"] == 2
        gate.is_open.set()
        assert future.result(20) == "answered"


def test_the_bound_on_asyncio(gate: Gate, gated: Server) -> None:
    """The same there; a call that is cancelled makes room."""

    async def main() -> None:
        async with aio.Pool(gated.address, max_waiting=2) as pool:
            tasks = [pool.call_async("x") for _ in range(2)]
            while pool.pending < 2:
                await asyncio.sleep(0)
            with pytest.raises(TooManyWaiting):
                await pool.call("x")
            with pytest.raises(TooManyWaiting):
                await pool.notify("x")
            with pytest.raises(TooManyWaiting):
                async with pool.batch() as batch:
                    batch.call("x")
            tasks[0].cancel()
            await asyncio.wait(tasks[:1])
            assert (pool.stats()["waiting"], pool.stats()["refused"]) == (1, 3)
            gate.is_open.set()
            assert await pool.call("x", timeout=20) == await tasks[1] == "answered"
            async with pool.batch() as batch:
                batch.call("x")
                batch.call("x")
            assert batch.results() == ["answered"] * 2
            assert (pool.stats()["waiting"], pool.stats()["refused"]) == (0, 3)

    asyncio.run(main())


def test_the_bound_is_one_that_can_be_kept() -> None:
    """None is no bound; less than one call could never be made."""
    for kind in (Pool, aio.Pool):
        with pytest.raises(ValueError, match="max_waiting"):
            kind("a:1", max_waiting=0)
    waiting = Waiting(None, contextlib.nullcontext())
    waiting.enter(range(10**5))
    assert (waiting.count, waiting.refused) == (10**5, 0)


def test_an_interrupted_call_does_not_wait_for_ever() -> None:
    """A signal handler's exception may strike when a call has just been counted in: it is counted out all the same."""

    @contextlib.contextmanager
    def interrupted() -> Iterator[None]:
        yield
        raise KeyboardInterrupt

    with Pool("a:1", max_waiting=1) as pool:
        pool._waiting = Waiting(1, interrupted())
        with pytest.raises(KeyboardInterrupt):
            pool.call("x")
        assert pool.stats()["waiting"] == 0
        pool._waiting = Waiting(1, interrupted())
        with pytest.raises(KeyboardInterrupt):
            pool.call_async("x")
        assert pool.stats()["waiting"] == 0


def test_the_error_is_one_of_the_tree() -> None:
    """Who catches `NotSent` or `ConnectionLost` catches it; it survives pickling."""
    error = pickle.loads(pickle.dumps(TooManyWaiting("found 1")))
    assert isinstance(error, NotSent) and isinstance(error, ConnectionLost) and str(error) == "found 1"
