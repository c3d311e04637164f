"""Each promise is tried on every engine: `bench` is one of them, opened and empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_servers import RedisServer, redis_server

from .benches import Bench, RedisBench, SQLiteBench


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for all tests of the folder."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def empty_redis(server: RedisServer) -> RedisServer:
    """The Redis, without a key."""
    with server.client as client:
        client.flushall()
    return server


@pytest.fixture(params=["sqlite", "redis"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """An engine."""
    is_redis = request.param == "redis"
    bench = RedisBench(request.getfixturevalue("empty_redis")) if is_redis else SQLiteBench(tmp_path)
    bench.begin()
    yield bench
    bench.engine.close()
