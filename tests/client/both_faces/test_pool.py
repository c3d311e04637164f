"""Pools: every address is used, a dead one is left alone, and connections are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from rpccluster.client import Client, Pool, aio
from rpccluster.errors import AddressError, ConnectFailed, Lost, NotSent, RemoteError

from ..servers import Server, serve
from ..settling import settle


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(serve()) for _ in range(3)]


@pytest.fixture
def pool(servers: list[Server]) -> Iterator[Pool]:
    with Pool([server.address for server in servers], connections=2, timeout=10) as pool:
        yield pool


def test_calls_take_turns(pool: Pool, servers: list[Server]) -> None:
    """Calls one after the other use every address, over one connection each."""
    assert [pool.call("sum", number, 1) for number in range(30)] == list(range(1, 31))
    assert [server.connections for server in servers] == [1, 1, 1]


def test_futures_take_turns(pool: Pool, servers: list[Server]) -> None:
    """Over the open connections, too."""
    for _ in servers:
        pool.call("sum", 1)
    taken: list[int] = []
    at = pool._members.at

    def note(place: tuple[int, int]) -> Client:
        taken.append(place[0])
        return at(place)

    pool._members.at = note  # type: ignore[method-assign]
    assert [pool.call_async("sum", 1).result(10) for _ in range(6)] == [1] * 6
    assert taken == [0, 1, 2] * 2


def test_a_future_takes_its_own_turn(servers: list[Server]) -> None:
    """Another thread that chooses meanwhile does not have it take the turn of an address that nobody connects to."""
    with Pool([server.address for server in servers[:2]], connections=1) as pool:
        members = pool._members
        members.clients[0][0].call("sum", 1)
        at = members.at

        def meanwhile(place: tuple[int, int]) -> Client:
            members.choose()
            return at(place)

        members.at = meanwhile  # type: ignore[method-assign]
        assert pool.call_async("sum", 1).result(10) == 1
        assert members.choose() == (1, 0)


def test_every_way_to_call(pool: Pool) -> None:
    """A pool has the names of a client."""
    assert pool.proxy.sum(1, 2) == 3
    assert pool.notify("log", 1) is None
    assert pool.call_async("sum", 1, 2).result(10) == 3
    with pool.batch() as batch:
        calls = [batch.call("echo", number) for number in range(100)]
    assert [call.result() for call in calls] == list(range(100))
    with pytest.raises(RemoteError):
        pool.call("fail", "ValueError: no")
    with pytest.raises(TypeError):
        pool.call("echo", object())
    assert pool.pending == 0


def test_connections_are_bounded(pool: Pool, servers: list[Server]) -> None:
    """Many threads share the connections there may be, and no more are made."""
    results: list[object] = []

    def work(worker: int) -> None:
        for number in range(20):
            results.append(pool.call("linger", 0.002, [worker, number]) == [worker, number])

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [True] * 400
    assert [server.connections for server in servers] == [2, 2, 2]


def test_a_dead_address_is_left_alone(servers: list[Server], pool: Pool) -> None:
    """While an address is dead its calls go to the others; when it is back it is used again, without any action."""
    dead = servers[0]
    name = dead.name
    dead.close()
    assert [pool.call("sum", 1) for _ in range(30)] == [1] * 30
    futures = [pool.call_async("sum", 1) for _ in range(10)]
    assert [future.result(10) for future in futures] == [1] * 10
    with serve(at=name) as back:
        deadline = time.monotonic() + 10
        while not back.connections:
            assert time.monotonic() < deadline
            pool.call("sum", 1)


def test_a_connection_that_ended(servers: list[Server], pool: Pool) -> None:
    """Connections that ended while nobody called cost no call anything."""
    for _ in range(6):
        pool.call("sum", 1)
    for server in servers:
        server.cut()
    settle(pool)
    assert [pool.call("sum", 1) for _ in range(12)] == [1] * 12


def test_lost_and_idempotent(servers: list[Server], pool: Pool) -> None:
    """A call that may have run is not sent to another address, unless it is idempotent."""
    with pytest.raises(Lost):
        pool.call("die")
    with pytest.raises(Lost):
        pool.call("die", idempotent=True)
    assert sum(server.connections for server in servers) >= 3


def test_all_dead() -> None:
    """Without any server a call says which ones it tried; once one is back calls succeed at once."""
    with serve() as one, serve() as other:
        name, addresses = one.name, [one.address, other.address]
    with Pool(addresses) as pool:
        for _ in range(5):
            with pytest.raises(ConnectFailed) as info:
                pool.call("sum", 1)
            assert all(address in str(info.value) for address in addresses)
        with pytest.raises(ConnectFailed):
            pool.call_async("sum", 1).result(10)
        with serve(at=name):
            assert pool.call("sum", 1, 2) == 3


def test_closed(pool: Pool) -> None:
    """A closed pool calls nobody."""
    pool.call("sum", 1)
    pool.close()
    with pytest.raises(NotSent, match="closed"):
        pool.call("sum", 1)


def test_bad_parameters() -> None:
    """A pool without addresses or connections, or with a bad address, is refused when it is made."""
    for kind in (Pool, aio.Pool):
        with pytest.raises(ValueError):
            kind([])
        with pytest.raises(ValueError):
            kind(["a:1"], connections=0)
        with pytest.raises(AddressError):
            kind(["a:1", "nonsense"])
        assert "a:1" in repr(kind("a:1"))


def test_on_asyncio(servers: list[Server]) -> None:
    """The same on asyncio."""

    async def main() -> None:
        async with aio.Pool([server.address for server in servers], connections=2, timeout=10) as pool:
            assert [await pool.call("sum", number, 1) for number in range(30)] == list(range(1, 31))
            assert [server.connections for server in servers] == [1, 1, 1]
            values = await asyncio.gather(*(pool.call("linger", 0.01, number) for number in range(100)))
            assert values == list(range(100))
            assert all(server.connections <= 2 for server in servers)
            async with pool.batch() as batch:
                call = batch.call("sum", 1, 2)
            assert call.result() == 3
            assert await pool.call_async("sum", 1) == 1
            assert await pool.proxy.sum(1) == 1
            await pool.notify("log", 1)
            with pytest.raises(Lost):
                await pool.call("die")
            servers[0].close()
            settle(pool, servers[0].address)
            assert [await pool.call("sum", 1) for _ in range(20)] == [1] * 20
        with pytest.raises(NotSent, match="closed"):
            await pool.call("sum", 1)

    asyncio.run(main())


def test_all_dead_on_asyncio() -> None:
    """Without any server a call says which ones it tried, here too."""
    with serve() as one, serve() as other:
        addresses = [one.address, other.address]

    async def main() -> None:
        async with aio.Pool(addresses) as pool:
            for _ in range(3):
                with pytest.raises(ConnectFailed) as info:
                    await pool.call("sum", 1)
                assert all(address in str(info.value) for address in addresses)

    asyncio.run(main())
