"""Servers under a pool are stopped and started one after the other: no caller notices."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from programs import free_port

from rpccluster import Pool, aio
from rpccluster.testing import RunningCluster, wait_until

CALLERS = 50


@pytest.fixture
def servers(make_cluster: Callable[..., RunningCluster]) -> Iterator[list[RunningCluster]]:
    yield [make_cluster(bind=f"tcp://127.0.0.1:{free_port()}").start() for _ in range(2)]


class Callers:
    """Fifty that call without a pause; ``outcomes`` counts what they got."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.are_over = threading.Event()

    def note(self, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def by_threads(self, addresses: list[str]) -> None:
        def work() -> None:
            while not self.are_over.is_set():
                try:
                    pool.call("sleep", 0.02)
                    self.note("answered")
                except Exception as error:
                    self.note(repr(error))

        with Pool(addresses, timeout=60) as pool:
            threads = [threading.Thread(target=work) for _ in range(CALLERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)

    def on_asyncio(self, addresses: list[str]) -> None:
        async def work(pool: Any) -> None:
            while not self.are_over.is_set():
                try:
                    await pool.call("sleep", 0.02)
                    self.note("answered")
                except Exception as error:
                    self.note(repr(error))

        async def main() -> None:
            async with aio.Pool(addresses, timeout=60) as pool:
                await asyncio.gather(*(work(pool) for _ in range(CALLERS)))

        asyncio.run(main())

    def wait_for_more(self) -> None:
        before = self.outcomes["answered"]
        wait_until(lambda: self.outcomes["answered"] > before + 2 * CALLERS)


@pytest.mark.parametrize("face", [Callers.by_threads, Callers.on_asyncio])
def test_no_call_is_lost(servers: list[RunningCluster], face: Callable[..., None]) -> None:
    """TERM to one of two servers under fifty calls in flight, one after the other: each call has its result."""
    callers = Callers()
    thread = threading.Thread(target=face, args=(callers, [server.address for server in servers]))
    thread.start()
    try:
        for server in servers:
            callers.wait_for_more()
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            callers.wait_for_more()
            server.start()
        callers.wait_for_more()
    finally:
        callers.are_over.set()
        thread.join(60)
    assert set(callers.outcomes) == {"answered"}, callers.outcomes
