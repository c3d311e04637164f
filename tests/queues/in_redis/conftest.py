"""A Redis for all tests of the folder, empty at the begin of each, and keepers on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from redis_servers import RedisServer, redis_server

pytest.importorskip("redis", reason="the extra `redis` is not installed")

from rpccluster.queues.engine import Rules
from rpccluster.queues.redis.address import RedisAddress
from rpccluster.queues.redis.engine import RedisEngine

MakeKeeper = Callable[..., RedisEngine]


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that no test may hurt."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    """The Redis, without a key."""
    with shared.client as client:
        client.flushall()
    return shared


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for this test alone, which keeps its items on disk."""
    with redis_server(tmp_path / "redis", appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.fixture
def keeper() -> Iterator[MakeKeeper]:
    """Makes keepers of the queue ``jobs``, opened; they are closed at the end."""
    made: list[RedisEngine] = []

    def make(server: RedisServer, name: str = "one", rules: Rules | None = None, **options: Any) -> RedisEngine:
        engine = RedisEngine(RedisAddress.parse(server.address), name, **options)
        engine.configure({"jobs": rules or Rules()}, None)
        made.append(engine)
        engine.open()
        return engine

    yield make
    for engine in made:
        engine.close()
