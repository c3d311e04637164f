"""Deadlines and cancellation in a real cluster: nothing runs on for a caller who has given up, wherever it runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rpccluster import CallTimeout, Client, RemoteError, aio
from rpccluster.testing import RunningCluster, call_once, wait_until

MakeCluster = Callable[..., RunningCluster]
IS_FULL = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
CALLS = 1000 if IS_FULL else 100
LIMIT_SECONDS = 0.1 if IS_FULL else 0.5  # some must begin within it
METHODS = ["greenlet", "a_coroutine", "a_thread", "in_pool"]

SERVICE = """
import asyncio
import os
import time

import rpccluster
from rpccluster import rpc

LOG = os.path.join(os.path.dirname(__file__), "ended")


def note(what, began):
    with open(LOG, "a") as log:
        log.write(f"{what} {time.monotonic() - began:.3f}\\n")


def begin(what):
    with open(LOG + ".not", "a") as log:
        log.write(f"{what}\\n")
    return time.monotonic()


class Shop(rpccluster.Service):
    def worker_started(self, worker):
        self.worker = worker

    def pid(self):
        return os.getpid()

    def greenlet(self, seconds):
        began = begin("greenlet")
        try:
            time.sleep(seconds)
        finally:
            note("greenlet", began)

    async def a_coroutine(self, seconds):
        began = begin("a_coroutine")
        try:
            await asyncio.sleep(seconds)
        finally:
            note("a_coroutine", began)

    @rpc(thread=True)
    def a_thread(self, seconds):
        began = begin("a_thread")
        call = rpccluster.current_call()
        while not call.cancelled and time.monotonic() < began + seconds:
            time.sleep(0.005)
        note("a_thread", began)

    @rpc(pool="p")
    def in_pool(self, seconds):
        begin("in_pool")
        time.sleep(seconds)
        return "ended"

    def calls_itself(self, address):
        began = time.monotonic()
        try:
            with rpccluster.Client(address, timeout=60) as client:
                client.call("greenlet", 30)
        finally:
            note("calls_itself", began)

    def set_health(self, is_healthy):
        self.worker.set_health(is_healthy)
        return os.getpid()
"""


@pytest.fixture
def shop(make_cluster: MakeCluster) -> RunningCluster:
    running = make_cluster(service="shop:Shop", number_workers=1, threads=4, graceful_timeout=10)
    running.write_section("pool:p", {"processes": 1, "targets": "shop"})
    running.write_module("shop", SERVICE)
    return running.start()


def ended(shop: RunningCluster) -> list[str]:
    log = Path(shop.folder) / "ended"
    return log.read_text().splitlines() if log.exists() else []


def seconds(line: str) -> float:
    return float(line.split()[1])


@pytest.mark.parametrize("moves", [False, True], ids=["stays", "moves"])
@pytest.mark.parametrize("method", METHODS)
def test_calls_whose_callers_give_up_do_not_run_on(shop: RunningCluster, method: str, moves: bool) -> None:
    """None runs much longer than its deadline, and the worker is free again, also if the connection moves meanwhile."""

    async def main() -> None:
        async with aio.Client(shop.address, timeout=30) as client:
            while True:  # until the client knows that deadlines are offered
                await client.call("pid")
                await asyncio.sleep(0.01)
                if client._connection._calls._bounded.is_offered:  # type: ignore[union-attr]
                    break
            old = await client.call("pid")
            calls = [asyncio.ensure_future(client.call(method, 10, timeout=LIMIT_SECONDS)) for _ in range(CALLS)]
            await asyncio.sleep(0)
            if moves:
                shop.signal(signal.SIGHUP)
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(error) for error in found} == {CallTimeout}
            while moves and await client.call("pid") == old:
                await asyncio.sleep(0.01)
            if method == "in_pool":  # its process was killed in the middle of each call
                assert await client.call("in_pool", 0) == "ended"

    asyncio.run(main())
    wait_until(lambda: not any(each["active_calls"] for each in shop.status()["workers"]), what="all are free again")
    assert f"Method {method} failed" not in shop.log_text()  # their callers know, and there may be very many
    log = Path(shop.folder) / "ended.not"  # some may have expired before they began
    begun = log.read_text().splitlines() if log.exists() else []
    if method == "in_pool":
        return
    assert len(wait_until(lambda: len(ended(shop)) == len(begun) and ended(shop))) >= 1
    assert max(map(seconds, ended(shop))) < (0.2 if IS_FULL else 9)


@pytest.mark.parametrize("moves", [False, True], ids=["stays", "moves"])
@pytest.mark.parametrize("method", METHODS)
def test_a_cancellation_reaches_its_call(shop: RunningCluster, method: str, moves: bool) -> None:
    """Also in the worker that had the connection before."""
    with Client(shop.address, timeout=30) as client:
        old = client.call("pid")
        wait_until(lambda: client.call("pid") and client._connection._calls._bounded.is_offered)
        future = client.call_async(method, 30, timeout=None)
        wait_until((Path(shop.folder) / "ended.not").exists, what="it begins")
        if moves:
            shop.signal(signal.SIGHUP)
            wait_until(lambda: client.call("pid") != old, what="the connection has moved")
        assert future.cancel()
        if method == "in_pool":
            assert client.call("in_pool", 0) == "ended"  # there is one process
        else:
            assert seconds(wait_until(lambda: ended(shop))[0]) < 10
        assert client.call("pid")


def test_a_client_inside_a_method_has_what_is_left(shop: RunningCluster) -> None:
    with Client(shop.address, timeout=30) as client:
        wait_until(lambda: client.call("pid") and client._connection._calls._bounded.is_offered)
        with pytest.raises(CallTimeout):
            client.call("calls_itself", shop.address, timeout=0.5 if IS_FULL else 2.0)
    lines = wait_until(lambda: len(ended(shop)) == 2 and ended(shop))
    assert sorted(line.split()[0] for line in lines) == ["calls_itself", "greenlet"]
    assert all(seconds(line) < 10 for line in lines)


def test_a_worker_that_is_not_well_accepts_nothing(make_cluster: MakeCluster) -> None:
    """The connections that it has are served on; the other worker takes the new ones."""
    shop = make_cluster(service="shop:Shop", number_workers=2)
    shop.write_section("pool:p", {"processes": 1, "targets": "shop"})
    shop.write_module("shop", SERVICE)
    shop.start()
    with shop.client() as client:
        assert client.call("rpc.health") is True
        ill = client.call("set_health", False)
        assert client.call("rpc.health") is False
        assert client.call("pid") == ill
        found = {call_once(shop.address, "pid") for _ in range(20)}
        assert len(found) == 1 and ill not in found
        client.call("set_health", True)
        assert client.call("rpc.health") is True
        wait_until(lambda: call_once(shop.address, "pid") == ill, what="it accepts again")


def test_a_service_must_leave_the_names_of_the_package(make_cluster: MakeCluster) -> None:
    shop = make_cluster(service="own:Shop", number_workers=1)
    shop.write_module("own", "class Shop:\n    def __init__(self):\n        setattr(self, 'rpc.mine', lambda: 1)\n")
    ended_with = shop.run()
    assert ended_with.returncode == 4
    assert "rpc.mine" in ended_with.stderr + shop.log_text()


def test_foreign_callers(shop: RunningCluster) -> None:
    """By hand, as any client may."""

    def call(*params: Any) -> Any:
        return call_once(shop.address, "rpc.call", *params)

    assert call("pid", [], {"timeout": 30}) == shop.worker_pids()[0]
    with pytest.raises(CallTimeout):
        call("greenlet", [10], {"timeout": 0.05})
    with pytest.raises(RemoteError, match="ArgumentError"):
        call("pid", [], {"timeout": float("nan")})
    assert {"rpc.call", "rpc.cancel", "rpc.health"} <= set(call_once(shop.address, "rpc.discover"))
