"""Random verbs by random clients with random deaths, held against the model, for the engine in a Redis of two keepers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from redis_servers import RedisServer, redis_server

from rpccluster.queues.redis.address import RedisAddress
from rpccluster.queues.redis.engine import RedisEngine
from rpccluster.queues.redis.link import SCRIPT
from tests.queues.test_model import QUEUE, RULES, Machine

FROZEN = SCRIPT.replace(b"call('TIME')", b"{ call('GET', 'made-up-time'), 0 }")


class RedisMachine(Machine):
    """The same queue behind two keepers, which take turns: what one has done the other one sees."""

    server: RedisServer

    def open(self) -> None:
        """Let both keepers begin; what is in the Redis stays unless it is the first time."""
        self.client = self.server.client
        if not hasattr(self, "engines"):
            self.client.flushall()
        self.client.set("made-up-time", self.now)
        self.engines = [self._keeper(name) for name in ("one", "two")]
        self.engine = self.engines[0]

    def _keeper(self, name: str) -> Any:
        engine = RedisEngine(
            RedisAddress.parse(self.server.address),
            name,
            script=FROZEN,
            session_grace=1e6,
            clock=lambda: round(self.now * 1e9),
        )
        engine.configure({QUEUE: RULES}, None)
        engine.open()
        return engine

    def run(self, *verbs: Any) -> list[Any]:
        """Run a batch; it is the other keeper's turn if the verbs concern no session."""
        self.client.set("made-up-time", self.now)
        is_of_session = any(getattr(verb, "session", None) for verb in verbs)
        self.engine = self.engines[0 if is_of_session else 1]
        return super().run(*verbs)

    def teardown(self) -> None:
        """End both keepers."""
        for engine in self.engines:
            engine.close()
        self.client.close()


RedisMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


class TestModel(RedisMachine.TestCase):  # type: ignore[name-defined,misc]
    """Runs the machine on a Redis of its own."""

    @pytest.fixture(autouse=True, scope="class")
    def _server(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder) / "redis") as server:
            RedisMachine.server = server
            yield
