"""Connecting: one deadline for the look-up and all addresses of a name, and nobody waits for it who need not."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rpccluster.client import Client, Pool, aio
from rpccluster.client.core.timeouts import CLIENTS, seconds_of
from rpccluster.client.sync.dialing import dial
from rpccluster.client.threads import forks, lookup
from rpccluster.errors import CallTimeout, ConnectFailed, Lost, NotSent

from ..faces import FACES, call_by
from ..servers import Server, serve

each_face = pytest.mark.parametrize("face", FACES)


@pytest.fixture
def deaf() -> Iterator[tuple[str, int]]:
    """An address that lets no connection succeed, and refuses none: its backlog is full."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What made-up names stand for: a list of socket addresses, or a function to be called first."""
    made_up: dict[str, Any] = {}
    original = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, flags: int = 0, **options: Any) -> Any:
        if host not in made_up or flags & socket.AI_NUMERICHOST:
            return original(host, port, *args, flags=flags, **options)
        found = made_up[host]() if callable(made_up[host]) else made_up[host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", name) for name in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return made_up


@each_face
def test_a_dead_address_of_a_name(face: str, deaf: tuple[str, int], names: dict[str, Any], server: Server) -> None:
    """One that says nothing costs a quarter of a second, not the whole timeout; by whichever face."""
    names["both.test"] = [deaf, server.name]
    start = time.monotonic()
    assert call_by(face, f"both.test:{server.name[1]}", "sum", 1, 2, timeout=30, connect_timeout=20) == 3
    assert time.monotonic() - start < 10


@each_face
def test_an_address_that_refuses(face: str, names: dict[str, Any], server: Server) -> None:
    """The next one is tried at once; when all refuse the error says so."""
    with serve() as gone:
        pass
    names["both.test"] = [gone.name, server.name]
    assert call_by(face, "both.test:1", "sum", 1, 2) == 3
    names["none.test"] = [gone.name, gone.name]
    with pytest.raises(ConnectFailed, match=r"none\.test:1: .*(refused|Connect call failed)"):
        call_by(face, "none.test:1", "sum")


@each_face
def test_an_address_without_a_route(face: str, names: dict[str, Any], server: Server) -> None:
    """What fails before anybody could wait for it is not waited for; when all do the error says why."""
    nowhere = ("255.255.255.255", 1)  # no TCP: the kernel refuses it itself
    names["both.test"] = [nowhere, nowhere, server.name]
    assert call_by(face, "both.test:1", "sum", 1, 2) == 3
    names["none.test"] = [nowhere, nowhere]
    with pytest.raises(ConnectFailed, match=r"unreachable|denied"):
        call_by(face, "none.test:1", "sum", timeout=2)


@each_face
@pytest.mark.parametrize("options", [{"timeout": 0.5}, {"connect_timeout": 0.5}], ids=str)
def test_all_addresses_together(
    face: str, options: dict[str, float], deaf: tuple[str, int], names: dict[str, Any]
) -> None:
    """However many of them say nothing: one timeout for all."""
    names["many.test"] = [deaf] * 2 + [("127.0.0.1", deaf[1])]
    start = time.monotonic()
    with pytest.raises(ConnectFailed):
        call_by(face, "many.test:1", "sum", **options)
    assert 0.4 < time.monotonic() - start < 5


@pytest.mark.parametrize("face", ["call", "future", "batch", "pool"])
def test_a_look_up_that_hangs(face: str, names: dict[str, Any]) -> None:
    """It is bounded, too, and costs one thread for all who wait for the same name."""
    is_over = threading.Event()

    def hang() -> list[Any]:
        is_over.wait(30)
        return []

    names["slow.test"] = hang
    start = time.monotonic()
    for _ in range(3):
        with pytest.raises(ConnectFailed):
            call_by(face, "slow.test:1", "sum", timeout=0.3)
    assert time.monotonic() - start < 5
    assert sum(thread.name == "rpccluster look-up" for thread in threading.enumerate()) == 1
    is_over.set()
    while lookup._searches:
        time.sleep(0.001)


def test_a_look_up_that_hangs_on_asyncio(names: dict[str, Any]) -> None:
    """Here asyncio's own thread waits for it."""
    is_over = threading.Event()

    def hang() -> list[Any]:
        is_over.wait(30)
        return []

    async def main() -> None:
        async with aio.Client("slow.test:1", timeout=0.3) as client:
            with pytest.raises(ConnectFailed):
                await client.call("sum")
        is_over.set()

    names["slow.test"] = hang
    asyncio.run(main())


def test_a_look_up_whose_thread_was_not_started(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler has raised: the next one for the same name does not wait for it."""

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    names["some.test"] = [("127.0.0.1", 1)]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, "start", interrupted)
        lookup.look_up("some.test", 1, math.inf)
    assert lookup.look_up("some.test", 1, time.monotonic() + 5) == [(socket.AF_INET, ("127.0.0.1", 1))]


def test_a_copy_of_the_process_waits_for_no_look_up_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one that nobody has told of the fork."""
    monkeypatch.setitem(lookup._searches, ("some.test", 1, None), lookup._Search(("some.test", 1, None)))
    monkeypatch.setattr(forks, "MARK", [0])
    forks.notice_fork()
    assert not lookup._searches


def test_families_take_turns() -> None:
    """The order of RFC 8305."""
    found = [(socket.AF_INET6, 1, 6, "", ("::1", 1)), (socket.AF_INET6, 1, 6, "", ("::2", 1))]
    found += [(socket.AF_INET, 1, 6, "", ("127.0.0.1", 1)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", 1))]
    assert [name[0] for _, name in lookup.ordered(found)] == ["::1", "127.0.0.1", "::2"]


def test_the_kernel_notices_a_vanished_server(server: Server) -> None:
    """Within a minute, whether a call waits or not."""
    with dial(*server.name, math.inf) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, 18) == 60_000  # TCP_USER_TIMEOUT
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 30

    async def main() -> None:
        async with aio.Client(server.address) as client:
            await client.call("sum")
            assert client._connection is not None
            sock = client._connection._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, 18) == 60_000

    asyncio.run(main())


# -- timeout


def test_what_timeout_means() -> None:
    """None is no limit, wherever it stands; without a timeout a call has the client's."""
    assert seconds_of(CLIENTS, 3) == 3
    assert seconds_of(None, 3) == math.inf
    assert seconds_of(2, 3) == 2


def test_none_is_no_limit_in_a_call(server: Server) -> None:
    """In every way to call."""

    async def main() -> None:
        async with aio.Client(server.address, timeout=0.05) as client:
            assert await client.call("sleep", 0.2, timeout=None) is None
            with pytest.raises(CallTimeout):
                await client.call("sleep", 0.2)

    with Client(server.address, timeout=0.05) as client:
        assert client.call("sleep", 0.2, timeout=None) is None
        assert client.call_async("sleep", 0.2, timeout=None).result() is None
        with client.batch(timeout=None) as batch:
            call = batch.call("sleep", 0.2)
        assert call.result() is None
        with pytest.raises(CallTimeout):
            client.call("sleep", 0.2)
    asyncio.run(main())


# -- call_async


@pytest.mark.parametrize("kind", [Client, Pool])
def test_call_async_waits_for_no_connection(kind: Any, deaf: tuple[str, int]) -> None:
    """It returns at once; each future ends at its own timeout, whichever is connecting."""
    with kind(f"127.0.0.1:{deaf[1]}", connect_timeout=20) as client:
        start = time.monotonic()
        late = client.call_async("sum", timeout=60)
        futures = [client.call_async("sum", timeout=0.2) for _ in range(50)]
        assert time.monotonic() - start < 15
        assert all(isinstance(future.exception(20), ConnectFailed) for future in futures)
        assert not late.done()
        with pytest.raises(TypeError):
            client.call_async("sum", object())
        client.close()
        assert isinstance(late.exception(20), (NotSent, ConnectFailed))


def test_what_a_future_sends_later_is_what_it_was_given(server: Server) -> None:
    """The params are packed at once."""
    with Client(server.address) as client:
        params = [1]
        future = client.call_async("echo", params)
        params.append(2)
        assert future.result(10) == [1]


def test_a_fork_while_futures_wait_for_a_connection(deaf: tuple[str, int]) -> None:
    """The child's copies end at once."""
    import os

    with Client(f"127.0.0.1:{deaf[1]}") as client:
        future = client.call_async("sum", timeout=60)
        pid = os.fork()
        if not pid:
            os._exit(0 if isinstance(future.exception(1), Lost) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        future.cancel()


# -- pools


def test_calls_of_a_pool_wait_for_no_dead_address(deaf: tuple[str, int], server: Server) -> None:
    """One connects to it; all others have their results meanwhile, by whichever way."""
    with Pool([f"127.0.0.1:{deaf[1]}", server.address], timeout=20, connect_timeout=15) as pool:
        waiting = pool.call_async("sum", 0)
        others = [pool.call_async("sum", number) for number in range(1, 6)]
        assert [future.result(10) for future in others] == [1, 2, 3, 4, 5]
        results: list[Any] = []
        threads = [threading.Thread(target=lambda: results.append(pool.call("sum", 1, 2))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert results == [3] * 8
        assert not waiting.done()
        waiting.cancel()
        pool.close()


def test_calls_of_a_pool_wait_for_no_dead_address_on_asyncio(deaf: tuple[str, int], server: Server) -> None:
    """The same there."""

    async def main() -> None:
        async with aio.Pool([f"127.0.0.1:{deaf[1]}", server.address], timeout=20, connect_timeout=15) as pool:
            waiting = pool.call_async("sum", 0)
            await asyncio.sleep(0)
            assert await pool.call("sum", 1, 2) == 3
            others = [pool.call_async("sum", number) for number in range(1, 6)]
            assert await asyncio.wait_for(asyncio.gather(*others), 10) == [1, 2, 3, 4, 5]
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait({waiting})

    asyncio.run(main())


# -- asyncio


def test_cancelled_in_any_turn(server: Server) -> None:
    """A cancellation is never swallowed, whatever happens in the same turn of the loop: not by connecting either."""

    async def main() -> int:
        for turns in range(200):
            async with aio.Client(server.address) as client:
                task = asyncio.ensure_future(client.call("sum", 1))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if not task.cancel():
                    return turns
                with pytest.raises(asyncio.CancelledError):
                    await task
        return 200

    asyncio.run(main())


def test_who_is_cancelled_takes_no_connection_from_others(server: Server) -> None:
    """Those who wait for the same attempt to connect go on waiting."""

    async def main() -> None:
        async with aio.Client(server.address) as client:
            tasks = [asyncio.ensure_future(client.call("sum", number)) for number in range(3)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            assert await asyncio.gather(*tasks[1:]) == [1, 2]
        assert server.connections == 1

    asyncio.run(main())


@each_face
def test_a_server_that_is_not_there_is_told_at_once(face: str) -> None:
    """Also by a call without a time limit."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(ConnectFailed):
        call_by(face, f"127.0.0.1:{port}", "echo", 1, timeout=None)
    assert time.monotonic() - begun < 30
