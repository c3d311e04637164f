"""Servers of Redis for the tests: each on a port of its own on loopback, with a private folder.

Starts them, stops them with SIGSTOP, kills and restarts them, and ends them whatever happens. Where `redis-server` or
redis-py is missing the test is skipped, with a reason (`tests.programs`). Test process only.
"""

from __future__ import annotations

import importlib
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from programs import free_port, missing, needed

__all__ = ["RedisServer", "redis_server"]


class RedisServer:
    """One server at a port of 127.0.0.1; ``settings`` are those of its command line, without their dashes."""

    def __init__(self, folder: Path, **settings: str) -> None:
        try:
            self._redis: Any = importlib.import_module("redis")
        except ImportError as error:
            missing(f"found no redis-py ({error}); the extra `redis` names it")
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = free_port()
        self.settings = {"save": "", "maxmemory-policy": "noeviction", **settings}
        self._program = needed("redis-server")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What `[queues] engine` names it by."""
        return f"redis://{self.host}:{self.port}/0"

    @property
    def client(self) -> Any:
        """A client of redis-py, new for each use; it repeats nothing."""
        return self._redis.Redis(
            self.host, self.port, password=self.settings.get("requirepass"), socket_timeout=5, retry=None
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        folder = str(self.folder)
        settings = {
            "bind": self.host,
            "port": str(self.port),
            "dir": folder,
            "enable-debug-command": "yes",
            **self.settings,
        }
        words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([self._program, *words], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < deadline and self._process.poll() is None, (self.folder / "redis.log").read_text()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with self.client as client:
                return bool(client.ping())
        except self._redis.exceptions.RedisError:
            return False

    def pause(self) -> None:
        """Let it stand still, with its connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pass_time(self, seconds: float) -> None:
        """Let the time of the queues go on, as if it had passed."""
        with self.client as client:
            client.incrby("rpccluster:shift", round(seconds * 1000))


@contextmanager
def redis_server(folder: Path, **settings: str) -> Iterator[RedisServer]:
    """Run a server. It is started, and killed at the end."""
    folder.mkdir(exist_ok=True)
    server = RedisServer(folder, **settings)
    try:
        server.start()
        yield server
    finally:
        server.kill()
