"""A pool gives a silent server up, and takes it back when it has answered a ping."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from rpccluster.client import Pool, aio
from rpccluster.client.core.choice import PING_SECONDS, Choice
from rpccluster.errors import CallTimeout
from rpccluster.testing import wait_until

from ..servers import Server, reply, requests, serve
from ..settling import MadeUpClock

LONGEST_SECONDS = 10.0  # a pause of an address that was set aside lasts


class Moody:
    """Answers while it ``speaks``; notes what it was asked."""

    def __init__(self) -> None:
        self.speaks = threading.Event()
        self.speaks.set()
        self.asked: list[str] = []

    def handle(self, sock: socket.socket) -> None:
        for message in requests(sock):
            self.asked.append(message[2])
            if self.speaks.is_set():
                sock.sendall(reply(message[1], "answered"))


@pytest.fixture
def moody() -> Moody:
    return Moody()


@pytest.fixture
def addresses(moody: Moody, server: Server) -> Iterator[list[str]]:
    with serve(moody.handle) as other:
        yield [other.address, server.address]


def call(pool: Pool) -> None:
    pool.call("sum", 1, timeout=0.5)


def by_future(pool: Pool) -> None:
    pool.call_async("sum", 1, timeout=0.5).result(5)


def by_batch(pool: Pool) -> None:
    with pool.batch(timeout=0.5) as batch:
        batch.call("sum", 1)
    batch.results()


def timeouts(one: Callable[[], Any], calls: int) -> int:
    """How many of the calls that are made one after the other have no reply in time."""
    count = 0
    for _ in range(calls):
        try:
            one()
        except CallTimeout:
            count += 1
    return count


@pytest.mark.parametrize("one", [call, by_future, by_batch])
def test_a_silent_server_costs_one_call(moody: Moody, addresses: list[str], one: Callable[[Pool], None]) -> None:
    """Then the others take the calls, and pings alone go to it; when it answers one it is used again."""
    with Pool(addresses, connections=1) as pool:
        pool._members.clock = clock = MadeUpClock()
        for _ in range(4):
            one(pool)
        moody.speaks.clear()
        moody.asked.clear()
        assert timeouts(lambda: one(pool), 20) == 1
        for count in (1, 2):
            clock.jump(LONGEST_SECONDS)
            assert timeouts(lambda: one(pool), 20) == 0
            wait_until(lambda: len(moody.asked) == 1 + count, what="a ping a pause")  # noqa: B023
        assert set(moody.asked[1:]) == {"rpc.ping"}
        moody.speaks.set()
        wait_until(lambda: clock.jump(LONGEST_SECONDS) or one(pool) or moody.asked[-1] == "sum")


def test_on_asyncio(moody: Moody, addresses: list[str]) -> None:
    """The same there."""

    async def main() -> None:
        async with aio.Pool(addresses, connections=1) as pool:
            pool._members.clock = clock = MadeUpClock()
            for _ in range(4):
                await pool.call("sum", 1)
            moody.speaks.clear()
            moody.asked.clear()
            calls = [pool.call_async("sum", 1, timeout=0.5) for _ in range(2)]  # one goes to each
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(outcome, CallTimeout) for outcome in outcomes) == 1
            for count in (1, 2):
                clock.jump(LONGEST_SECONDS)
                assert [await pool.call("sum", 1) for _ in range(20)] == [1] * 20
                while len(moody.asked) < 1 + count:
                    await asyncio.sleep(0)
            assert set(moody.asked[1:]) == {"rpc.ping"}
            moody.speaks.set()
            while moody.asked[-1] != "sum":
                clock.jump(LONGEST_SECONDS)
                await pool.call("sum", 1)

    asyncio.run(main())


@pytest.fixture
def old_dead() -> Iterator[tuple[Server, threading.Event]]:
    """A server that never answers over its first connection again once it is told to be silent."""
    silent = threading.Event()
    connections: list[socket.socket] = []

    def handle(sock: socket.socket) -> None:
        connections.append(sock)
        for message in requests(sock):
            if sock is not connections[0] or not silent.is_set():
                sock.sendall(reply(message[1], "answered"))

    with serve(handle) as server:
        yield server, silent


def test_a_way_that_is_dead_for_old_connections_alone(old_dead: tuple[Server, threading.Event]) -> None:
    """A connection that does not answer its ping takes no more calls; a new one does."""
    server, silent = old_dead
    with Pool([server.address], connections=1) as pool:
        assert pool.call("x") == "answered"
        silent.set()
        with pytest.raises(CallTimeout):
            pool.call("x", timeout=0.1)
        wait_until(lambda: timeouts(lambda: pool.call("x", timeout=0.1), 1) == 0, what="a new connection")
        assert server.connections == 2
        assert pool.call("x") == "answered"


def test_such_a_way_on_asyncio(old_dead: tuple[Server, threading.Event]) -> None:
    """The same there."""
    server, silent = old_dead

    async def main() -> None:
        async with aio.Pool([server.address], connections=1) as pool:
            assert await pool.call("x") == "answered"
            silent.set()
            outcome: Any = None
            for _ in range(100):
                with contextlib.suppress(CallTimeout):
                    outcome = await pool.call("x", timeout=0.1)
                    break
            assert (outcome, server.connections) == ("answered", 2)

    asyncio.run(main())


def test_choice() -> None:
    """A suspect rests once for all its timeouts, then is pinged, and rests longer each time it does not answer."""
    choice = Choice(2)
    for _ in range(50):
        choice.timed_out(0, 0.0)
    assert choice.to_ping(0.05) == []
    assert choice.choose([[0], [9]], 0.2) == (1, 0)  # rested, but it has to answer first
    assert choice.to_ping(0.2) == [0]
    assert choice.to_ping(0.2 + PING_SECONDS) == []  # one ping at a time
    choice.pinged(0, False, 1.2)
    assert choice.to_ping(1.3) == []
    assert choice.to_ping(1.5) == [0]
    choice.reached(0)  # connecting is no answer
    assert choice.choose([[0], [9]], 1.5) == (1, 0)
    choice.pinged(0, True, 1.5)
    assert choice.choose([[0], [9]], 1.5) == (0, 0)


def test_all_suspects() -> None:
    """With no other a suspect is used all the same."""
    choice = Choice(1)
    choice.timed_out(0, 0.0)
    assert choice.choose([[0]], 0.0) == (0, 0)
