"""An engine on a bench: it is opened, time passes at a word, and its keeper ends and begins anew. Test process only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from redis_servers import RedisServer

from rpccluster.queues.engine import Answer, Engine, Get, Item, Outcome, Put, Rules, Verb
from rpccluster.queues.sqlite import SQLiteEngine
from rpccluster.queues.timescale import Kept, Timescale

__all__ = ["CONSUMER", "OTHER", "PRODUCER", "Bench", "RedisBench", "SQLiteBench"]

PRODUCER, CONSUMER, OTHER = b"p" * 16, b"c" * 16, b"o" * 16


class Bench:
    """An engine with the one queue ``jobs``, whose rules each test chooses."""

    engine: Engine

    def __init__(self) -> None:
        self.rules: dict[str, Rules] = {"jobs": Rules()}
        self.default: Rules | None = None

    def configure(self, default: Rules | None = None, **rules: Any) -> None:
        """Choose the rules of ``jobs``, and those of queues that have no section."""
        self.rules, self.default = {"jobs": Rules(**rules)}, default
        self.engine.configure(self.rules, self.default)

    def begin(self) -> list[bytes]:
        """Open the engine. Returns the sessions from before."""
        self.engine = self._make()
        self.engine.configure(self.rules, self.default)
        return self.engine.open()

    def restart(self) -> list[bytes]:
        """End the keeper, and begin with the next one. Returns the sessions from before."""
        self.engine.close()
        return self.begin()

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        raise NotImplementedError

    def _make(self) -> Engine:
        raise NotImplementedError

    # -- verbs in short

    def run(self, *verbs: Verb) -> list[Answer]:
        """Run a batch. Returns its answers."""
        return self.engine.run(verbs).answers

    def outcome(self, *verbs: Verb) -> Outcome:
        """Run a batch. Returns all that came of it."""
        return self.engine.run(verbs)

    def put(self, *values: bytes, **options: Any) -> list[int]:
        """Put items into ``jobs``; an answer that is an error is raised."""
        return _raised(self.run(Put("jobs", values, **options))[0])

    def get(self, n: int = 1, session: bytes = CONSUMER, **options: Any) -> list[Item]:
        """Take items from ``jobs``; an answer that is an error is raised."""
        return _raised(self.run(Get("jobs", session, n, **options))[0])

    def values(self, n: int = 100, session: bytes = CONSUMER) -> list[bytes]:
        """Take items from ``jobs``. Returns their values."""
        return [item.value for item in self.get(n, session)]


def _raised(answer: Answer) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


class SQLiteBench(Bench):
    """The engine in a file, with a clock that a word moves."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / "queues.db"
        self._passed = 0.0

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self._passed += seconds

    def _make(self) -> Engine:
        def timescale(kept: Kept | None, boot: str) -> Timescale:
            return Timescale(kept, boot, lambda: time.monotonic() + self._passed, lambda: time.time() + self._passed)

        return SQLiteEngine(str(self._path), "os", make_time=timescale)


class RedisBench(Bench):
    """The engine in a Redis, which is emptied before; its clock is moved by the key that corrects it."""

    def __init__(self, server: RedisServer, keeper: str = "keeper") -> None:
        super().__init__()
        self._server = server
        self._keeper = keeper

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self._server.pass_time(seconds)

    def _make(self) -> Engine:
        from rpccluster.queues.redis.address import RedisAddress
        from rpccluster.queues.redis.engine import RedisEngine

        return RedisEngine(RedisAddress.parse(self._server.address), self._keeper)
