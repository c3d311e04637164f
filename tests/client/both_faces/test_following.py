"""Clients that follow the lead: every way to call, at one address and at several."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from rpccluster.client import Client, Pool, aio
from rpccluster.errors import ConnectFailed, LeadLost, NotLeader

from ..servers import Server, reply, requests, serve


class Clusters:
    """Three servers, one of which leads; ``write`` returns the number of the one that ran it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.leader: int | None = None
        self.runs: list[int] = []
        self.asked = 0
        self.servers: list[Server] = []
        for number in range(3):
            self.servers.append(stack.enter_context(serve(partial(self._handle, number))))

    @property
    def addresses(self) -> list[str]:
        return [server.address for server in self.servers]

    def _handle(self, number: int, sock: socket.socket) -> None:
        for message in requests(sock):
            if message[0] == 0:
                sock.sendall(self._answer(number, *message[1:]))

    def _answer(self, number: int, msgid: int, method: str, params: list[Any]) -> bytes:
        if method == "read":
            return reply(msgid, number)
        self.asked += 1
        if self.leader != number:
            where = "none" if self.leader is None else self.servers[self.leader].address
            return reply(msgid, error=f"NotLeader: {where}")
        self.runs.append(number)
        return reply(msgid, error="LeadLost: it may have run") if method == "lose" else reply(msgid, number)


@pytest.fixture
def clusters() -> Iterator[Clusters]:
    with contextlib.ExitStack() as stack:
        yield Clusters(stack)


def of_client(clusters: Clusters, method: str, **options: Any) -> Any:
    with Client(clusters.addresses[0], follow_leader=True, **options) as client:
        return client.call(method)


def of_future(clusters: Clusters, method: str, **options: Any) -> Any:
    with Client(clusters.addresses[0], follow_leader=True, **options) as client:
        return client.call_async(method).result(20)


def of_batch(clusters: Clusters, method: str, **options: Any) -> Any:
    with Client(clusters.addresses[0], follow_leader=True, **options) as client:
        with client.batch() as batch:
            calls = [batch.call(method) for _ in range(3)]
            reading = batch.call("read")
        assert reading.result() == 0, "what needs no lead is not repeated elsewhere"
        return calls[2].result()


def of_pool(clusters: Clusters, method: str, **options: Any) -> Any:
    with Pool(clusters.addresses, follow_leader=True, **options) as pool:
        return pool.call(method)


def of_aio(clusters: Clusters, method: str, **options: Any) -> Any:
    async def main() -> Any:
        async with aio.Client(clusters.addresses[0], follow_leader=True, **options) as client:
            return await client.call(method)

    return asyncio.run(main())


def of_aio_batch(clusters: Clusters, method: str, **options: Any) -> Any:
    async def main() -> Any:
        client = aio.Client(clusters.addresses[0], follow_leader=True, **options)
        async with client, client.batch() as batch:
            call = batch.call(method)
        return call.result()

    return asyncio.run(main())


def of_aio_pool(clusters: Clusters, method: str, **options: Any) -> Any:
    async def main() -> Any:
        async with aio.Pool(clusters.addresses, follow_leader=True, **options) as pool:
            return await pool.call(method)

    return asyncio.run(main())


WAYS = {
    "client": of_client,
    "future": of_future,
    "batch": of_batch,
    "pool": of_pool,
    "aio": of_aio,
    "aio batch": of_aio_batch,
    "aio pool": of_aio_pool,
}
every_way = pytest.mark.parametrize("way", list(WAYS))


@every_way
def test_the_leader_is_followed(way: str, clusters: Clusters) -> None:
    """The call runs where the lead is, and once."""
    clusters.leader = 2
    assert WAYS[way](clusters, "write") == 2
    assert set(clusters.runs) == {2} and len(clusters.runs) == (3 if way == "batch" else 1)


@every_way
def test_a_call_waits_until_somebody_leads(way: str, clusters: Clusters) -> None:
    """NotLeader: none is no end within the timeout; it is not asked in a busy loop."""
    threading.Timer(0.4, lambda: setattr(clusters, "leader", 1)).start()
    assert WAYS[way](clusters, "write") == 1
    assert clusters.asked < 40


@every_way
def test_nobody_leads_in_time(way: str, clusters: Clusters) -> None:
    """The call ends with its timeout, by the answer that it has had."""
    started = time.monotonic()
    with pytest.raises(NotLeader) as caught:
        WAYS[way](clusters, "write", timeout=0.3)
    assert caught.value.address is None
    assert 0.25 < time.monotonic() - started < 5


@every_way
def test_a_lost_lead_is_never_repeated(way: str, clusters: Clusters) -> None:
    """The method may have done its work."""
    clusters.leader = 0
    with pytest.raises(LeadLost):
        WAYS[way](clusters, "lose")
    assert len(clusters.runs) == (3 if way == "batch" else 1)


def test_without_following(clusters: Clusters) -> None:
    """A client that was not told to follow raises the answer."""
    clusters.leader = 2
    with Client(clusters.addresses[0]) as client, pytest.raises(NotLeader) as caught:
        client.call("write")
    assert caught.value.address == clusters.addresses[2] == str(caught.value)
    with Client(clusters.addresses[0]) as client, client.batch() as batch:
        call = batch.call("write")
    with pytest.raises(NotLeader):
        call.result()


def test_the_next_call_goes_to_the_leader_at_once(clusters: Clusters) -> None:
    """One that was refused before; others go on where they went."""
    clusters.leader = 1
    with Client(clusters.addresses[0], follow_leader=True) as client:
        assert [client.call("write") for _ in range(3)] == [1, 1, 1]
        assert clusters.asked == 4
        assert client.call_async("write").result(10) == 1
        assert client.call_async("write").result(10) == 1
        assert clusters.asked == 6
        assert client.call("read") == 0
        clusters.leader = 2
        assert client.call("write") == 2


def test_a_dead_leader_is_waited_for(clusters: Clusters) -> None:
    """Its successor takes over while the others still name the dead one."""
    clusters.leader = 2
    with Pool(clusters.addresses, follow_leader=True) as pool:
        assert pool.call("write") == 2
        clusters.servers[2].close()
        threading.Timer(0.5, lambda: setattr(clusters, "leader", 0)).start()
        assert pool.call("write", idempotent=True) == 0
        assert pool.call_async("write").result(10) == 0


def test_many_futures_wait_together(clusters: Clusters) -> None:
    """A pause is the client's, not each call's: hundreds that wait are sent when it is over."""
    with Client(clusters.addresses[0], follow_leader=True, timeout=20) as client:
        futures = [client.call_async("write") for _ in range(300)]
        threading.Timer(0.3, lambda: setattr(clusters, "leader", 1)).start()
        started = time.monotonic()
        assert [future.result(20) for future in futures] == [1] * 300
        assert time.monotonic() - started < 10
        assert client.pending == 0


def test_a_server_that_is_away_comes_back() -> None:
    """Where only the leader listens there may be no listener for a moment; it is waited for within the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        at = held.getsockname()
    with Client(f"{at[0]}:{at[1]}", follow_leader=True) as client:
        with pytest.raises(ConnectFailed):
            client.call("sum", 1, timeout=0.2)
        future = client.call_async("sum", 1)
        with serve(at=at):
            assert client.call("sum", 1, 2) == 3
            assert future.result(10) == 1


def test_closing_ends_what_waits(clusters: Clusters) -> None:
    """A closed client makes no further attempt."""
    client = Client(clusters.addresses[0], follow_leader=True, timeout=None)
    future = client.call_async("write")
    client.close()
    assert future.exception(10) is not None
