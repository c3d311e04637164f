"""Random verbs by random clients with random deaths, held against the model, for two keepers of one Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
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
            self.engines: list[Any] = []
            self.client.flushall()
        for engine in self.engines:
            engine.close()
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

    def pairs(self, data: st.DataObject, label: str) -> tuple[int, int]:
        """Draw as the machine does, but no first attempt that nobody was given: of those nothing is kept."""
        return super().pairs(data, label) if self.model.items else (10**6, 1)

    def teardown(self) -> None:
        """End both keepers."""
        for engine in self.engines:
            engine.close()
        self.client.close()


def test_random_verbs_and_deaths(tmp_path: Path) -> None:
    """Nothing that can be seen differs from the model, whichever of two keepers is asked."""
    with redis_server(tmp_path / "redis") as RedisMachine.server:
        machine_settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
        run_state_machine_as_test(RedisMachine, settings=machine_settings)
