"""The client on asyncio: the same names and promises, and cancellation."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import random
import socket
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Callable

import pytest

from rpccluster.client import Client, Pool, aio
from rpccluster.errors import (
    CallTimeout,
    ConnectFailed,
    Lost,
    NoMethodError,
    NotSent,
    RemoteError,
)

from ..servers import Server, reply, requests, serve
from ..settling import settle

Test = Callable[..., Coroutine[Any, Any, None]]


def on_loop(test: Test) -> Callable[..., None]:
    """Run a test's coroutine on a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run


def test_same_names() -> None:
    """Both faces, and both pools, have the same public names with the same parameters."""
    for one, other in ((Client, aio.Client), (Pool, aio.Pool)):
        assert _public(one) == _public(other)


def _public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@on_loop
async def test_call(server: Server) -> None:
    """Calls, errors, notifications and the proxy."""
    async with aio.Client(server.address) as client:
        assert await client.call("sum", 1, 2) == 3
        assert await client.proxy.sum(1, 2, timeout=5) == 3
        assert await client.notify("log", 1) is None
        with pytest.raises(RemoteError, match="ValueError: no"):
            await client.call("fail", "ValueError: no")
        with pytest.raises(NoMethodError):
            await client.proxy.rpc.nothing()
        for bad in (object(), 2**70):
            with pytest.raises((TypeError, OverflowError)):
                await client.call("echo", bad)
        assert await client.call_async("sum", 1) == 1
        assert repr(client) == f"<aio.Client {server.address}>"
    assert server.connections == 1


@on_loop
async def test_unix(tmp_path: Path) -> None:
    """Unix addresses work."""
    with serve(at=tmp_path / "s") as server:
        async with aio.Client(server.address) as client:
            assert await client.call("sum", 1, 2) == 3


@on_loop
async def test_many_tasks(server: Server) -> None:
    """Many tasks share one client: each result is its own call's."""

    async def work(worker: int) -> None:
        dice = random.Random(worker)
        for number in range(100):
            value = [worker, number, "x" * dice.choice([0, 10, 10_000])]
            method = ("linger", 0.001 * dice.random()) if dice.random() < 0.1 else ("echo",)
            assert await client.call(*method, value) == value

    async with aio.Client(server.address) as client:
        await asyncio.gather(*(work(worker) for worker in range(50)))
    assert server.connections == 1


@on_loop
async def test_timeout(server: Server) -> None:
    """Calls end at their timeouts, the earlier ones first; late replies answer nobody."""
    async with aio.Client(server.address, timeout=5) as client:
        start, ended = time.monotonic(), []
        long = client.call_async("sleep", 60, timeout=0.3)
        short = client.call_async("linger", 0.15, "late", timeout=0.1)
        for task in (long, short):
            task.add_done_callback(ended.append)
        with pytest.raises(CallTimeout):
            await short
        assert time.monotonic() - start > 0.09
        assert await client.call("linger", 0.1, "next") == "next"
        with pytest.raises(CallTimeout):
            await long
        assert ended == [short, long]
    assert server.connections == 1


@on_loop
async def test_late_replies_are_dropped(server: Server) -> None:
    """Timeouts and calls mixed at random: each call has its own result."""
    dice = random.Random(5)
    late = 0

    async def work() -> None:
        nonlocal late
        for number in range(60):
            try:
                delay, timeout = 0.01 * dice.random(), 0.01 * dice.random()
                assert await client.call("linger", delay, number, timeout=timeout) == number
            except CallTimeout:
                late += 1
            assert await client.call("echo", number) == number

    async with aio.Client(server.address) as client:
        await client.call("sum", 1)
        await asyncio.gather(*(work() for _ in range(20)))
    assert late > 100
    assert server.connections == 1


@on_loop
async def test_cancel(server: Server) -> None:
    """A cancelled call drops its reply when it comes, and the connection goes on."""
    async with aio.Client(server.address) as client:
        await client.call("sum", 1)
        tasks = [client.call_async("linger", 0.2, number) for number in range(50)]
        while client.pending < 50:
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        assert await asyncio.gather(*tasks[1::2]) == list(range(1, 50, 2))
        for task in tasks[::2]:
            with pytest.raises(asyncio.CancelledError):
                await task
        assert client.pending == 0
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.call("sleep", 9), 0.02)
        assert await client.call("echo", "next") == "next"
    assert server.connections == 1


@on_loop
async def test_cancel_while_connecting() -> None:
    """A call that is cancelled while it connects leaves a client that connects for the next one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        name = listener.getsockname()
    client = aio.Client(f"127.0.0.1:{name[1]}")
    task = client.call_async("sum", 1)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, ConnectFailed)):
        await task
    with serve(at=name):
        assert await client.call("sum", 1, 2) == 3
    await client.close()


@on_loop
async def test_connect_failed() -> None:
    """Without a server a call fails at once, for all who wait for the connection."""
    with serve() as server:
        address = server.address
    async with aio.Client(address) as client:
        outcomes = await asyncio.gather(*(client.call("sum", 1) for _ in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectFailed] * 5


@on_loop
async def test_one_connection_for_all_who_wait(server: Server) -> None:
    """Calls that start together share the one connection they make."""
    async with aio.Client(server.address) as client:
        assert await asyncio.gather(*(client.call("echo", number) for number in range(20))) == list(range(20))
    assert server.connections == 1


@on_loop
async def test_the_end_of_the_connection(server: Server) -> None:
    """Every pending call ends with the connection, and the next one connects again."""
    async with aio.Client(server.address) as client:
        tasks = [client.call_async("sleep", 30) for _ in range(20)]
        while client.pending < 20:
            await asyncio.sleep(0.005)
        server.cut()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Lost] * 20
        assert await client.call("sum", 1, 2) == 3


@on_loop
async def test_reconnects_although_the_loop_was_blocked(server: Server) -> None:
    """A connection that ended while the loop was blocked costs the next call nothing."""
    async with aio.Client(server.address) as client:
        for count in range(1, 4):
            assert await client.call("sum", 1, 2) == 3
            assert server.connections == count
            server.cut()
            settle(client)  # and the loop does not look


@on_loop
async def test_idempotent() -> None:
    """A call that may run twice is sent again when the connection ends under it."""
    calls: list[int] = []

    def handle(sock: socket.socket) -> None:
        for message in requests(sock):
            calls.append(message[1])
            if len(calls) < 3:
                return
            sock.sendall(reply(message[1], "done"))

    with serve(handle) as server:
        async with aio.Client(server.address) as client:
            assert await client.call("x", idempotent=True) == "done"


@on_loop
async def test_batch(server: Server) -> None:
    """A batch has all its results in order, and its errors where they belong."""
    async with aio.Client(server.address) as client:
        async with client.batch() as batch:
            calls = [batch.call("echo", number) for number in range(2000)]
            bad = batch.call("fail", "ValueError: no")
        assert [call.result() for call in calls] == list(range(2000))
        with pytest.raises(RemoteError):
            bad.result()
        async with client.batch(timeout=0.05) as batch:
            batch.call("echo", 1)
            late = batch.call("sleep", 9)
        assert isinstance(late.error, CallTimeout)
        async with client.batch():
            pass
    with serve() as gone:
        pass
    async with aio.Client(gone.address) as client:
        with pytest.raises(ConnectFailed):
            async with client.batch() as batch:
                batch.call("echo", 1)


@on_loop
async def test_large_messages(server: Server) -> None:
    """Messages larger than any buffer pass, and those who wait for room to write get their turn."""
    value = b"x" * 3_000_000
    async with aio.Client(server.address, timeout=30) as client:
        assert await asyncio.gather(*(client.call("echo", value) for _ in range(6))) == [value] * 6


@on_loop
async def test_a_server_that_does_not_read() -> None:
    """Calls that cannot even be written end at their timeouts."""

    is_over = threading.Event()
    with serve(lambda sock: is_over.wait(20) and None) as server:
        async with aio.Client(server.address, timeout=0.2) as client:
            tasks = [client.call("echo", b"x" * 3_000_000) for _ in range(5)]
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [CallTimeout] * 5
        is_over.set()


@on_loop
async def test_closed(server: Server) -> None:
    """A closed client calls nobody; what was pending is told."""
    client = aio.Client(server.address)
    task = client.call_async("sleep", 30)
    while not client.pending:
        await asyncio.sleep(0.005)
    await client.close()
    with pytest.raises(Lost, match="closed"):
        await task
    with pytest.raises(NotSent, match="closed"):
        await client.call("sum", 1)
    await client.close()


def test_another_loop(server: Server) -> None:
    """A client that is used in another loop opens a connection of that loop's."""
    client = aio.Client(server.address)

    async def call() -> object:
        return await client.call("sum", 1, 2)

    assert [asyncio.run(call()) for _ in range(3)] == [3, 3, 3]
    gc.collect()


def test_fork(server: Server) -> None:
    """A client that is used after a fork, in a loop of the child's, opens its own connection."""

    async def parent(client: aio.Client) -> None:
        assert await client.call("echo", "parent") == "parent"
        pid = os.fork()
        if not pid:
            os._exit(0 if _in_child(client) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert await client.call("echo", "parent") == "parent"
        await client.close()

    asyncio.run(parent(aio.Client(server.address)))
    assert server.connections == 2


def _in_child(client: aio.Client) -> bool:
    asyncio.events._set_running_loop(None)
    loop = asyncio.new_event_loop()
    return bool(loop.run_until_complete(client.call("echo", "child")) == "child")


def test_uvloop(server: Server) -> None:
    """On uvloop everything goes as well."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with aio.Client(server.address) as client:
            assert await asyncio.gather(*(client.call("echo", n) for n in range(200))) == list(range(200))
            with pytest.raises(CallTimeout):
                await client.call("sleep", 9, timeout=0.05)
            async with client.batch() as batch:
                calls = [batch.call("echo", number) for number in range(500)]
            assert [call.result() for call in calls] == list(range(500))
            server.cut()
            settle(client)
            assert await client.call("sum", 1, 2) == 3

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
