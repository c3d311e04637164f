"""Where peers are measured: the servers that run, which core is whose, one measured run. Bench process only."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.build import BUILT, CHECKOUT, build
from bench.errors import BenchError
from bench.load import Call, Load, opened
from bench.peers import Peer
from bench.processes import CPUTime, Server, busy_seconds

__all__ = ["Cores", "Measured", "Stage"]

_Served = tuple[tuple[str, ...], int, str]


@dataclass(frozen=True)
class Cores:
    """Which CPUs this run may use: the first for the server, the second for the load, if there is one."""

    allowed: tuple[int, ...]

    @classmethod
    def found(cls) -> Cores:
        return cls(tuple(sorted(psutil.Process().cpu_affinity())))

    def servers(self, workers: int = 1) -> set[int]:
        """A core for each worker, as far as there are."""
        return set(self.allowed[:workers])

    def load(self, workers: int = 1) -> set[int]:
        """The cores that no worker has, or else all of them: then the load shares with the workers."""
        return set(self.allowed[workers : workers + 1]) or set(self.allowed)

    def is_shared(self, workers: int = 1) -> bool:
        """Whether the load runs on cores that are a worker's."""
        return len(self.allowed) <= workers


@dataclass(frozen=True)
class Measured:
    """One run of load: what the load reports, and what CPU the server and everybody used meanwhile, in seconds."""

    report: dict[str, Any]
    cpu: CPUTime
    busy_seconds: float

    def of(self, name: str) -> dict[str, float]:
        """The figures of one kind of call."""
        figures: dict[str, float] = self.report["calls"][name]
        return figures

    @property
    def calls(self) -> float:
        """Calls of all kinds."""
        return float(sum(figures["calls"] for figures in self.report["calls"].values()))

    @property
    def others_share(self) -> float:
        """How many cores' worth others used meanwhile: more than a tenth makes the figures doubtful."""
        own = self.cpu.workers + self.cpu.master + float(self.report["cpu_seconds"])
        return max(0.0, self.busy_seconds - own) / float(self.report["wall_seconds"])

    @property
    def load_share(self) -> float:
        """How much of a core the load used: near 1 it may have been the limit."""
        return float(self.report["cpu_seconds"]) / float(self.report["wall_seconds"])


class Stage(contextlib.ExitStack):
    """Servers by peer, started when first asked for and ended when the stage is left."""

    def __init__(self, cores: Cores) -> None:
        super().__init__()
        self.cores = cores
        self._servers: dict[_Served, Server] = {}

    def server(self, peer: Peer) -> Server:
        """The peer's server that all scenarios, and all peers that are clients of it, share. Raises `BenchError`."""
        served = _served(peer)
        if served not in self._servers:
            self._servers[served] = self.enter_context(self.fresh(peer))
        return self._servers[served]

    @contextlib.contextmanager
    def fresh(self, peer: Peer) -> Iterator[Server]:
        """A server that has served nobody yet, for figures of memory. Raises `BenchError`."""
        folder = BUILT / "run"
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / re.sub(r"\W+", "-", peer.name)
        command = [part.format(**_substitutes(part, peer, stem)) for part in peer.command]
        cpus = self.cores.servers(peer.workers)
        server = Server(peer, command, cpus, stem.with_suffix(".log"))
        try:
            yield server
        finally:
            server.stop()

    def measure(
        self,
        peer: Peer,
        calls: list[Call],
        connections: int,
        seconds: float,
        server: Server | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Measured:
        """Load the peer's server for a while; every reply is checked. Raises `BenchError`."""
        server = server or self.server(peer)
        try:
            with self.opened(peer, server, calls, connections, seconds) as load:
                cpu, busy = server.cpu(), busy_seconds(self.cores.allowed)
                report = load.run(meanwhile)
                return Measured(report, server.cpu() - cpu, busy_seconds(self.cores.allowed) - busy)
        except (BenchError, OSError, psutil.NoSuchProcess) as error:
            # it answered wrongly or is gone: the next one gets a new one
            self._servers.pop(_served(peer), server).stop()
            raise BenchError(str(error)) from error

    def opened(
        self, peer: Peer, server: Server, calls: list[Call], connections: int, seconds: float
    ) -> contextlib.AbstractContextManager[Load]:
        """A load on the peer's server, its connections open, on the cores that are the load's."""
        cpus = self.cores.load(peer.workers)
        python = peer.load_python.format(**_substitutes(peer.load_python, peer, BUILT))
        return opened(
            peer.load, peer.encoding, server.port, calls, connections, seconds, cpus, python, folder=peer.folder
        )


def _served(peer: Peer) -> _Served:
    """What tells one server from another."""
    return peer.command, peer.workers, peer.config


def _substitutes(part: str, peer: Peer, stem: Path) -> dict[str, str]:
    """What ``{…}`` in a command stands for; made only when it is asked for."""
    makers: dict[str, Callable[[], str]] = {
        "python": lambda: sys.executable,
        "floor": lambda: str(build("floor")),
        "old_python": _old_python,
        "config": lambda: _write_config(peer, stem.with_suffix(".ini")),
    }
    return {name: make() for name, make in makers.items() if "{" + name + "}" in part}


def _write_config(peer: Peer, path: Path) -> str:
    checkout = (peer.folder or str(CHECKOUT)).replace("%", "%%")
    values = {"service": "bench.service:Bench", "checkout": checkout, "workers": peer.workers}
    path.write_text(peer.config.format(**values))
    return str(path)


def _old_python() -> str:
    """The interpreter of the environment that holds msgpack-rpc-python, made by the same code as for the tests."""
    try:
        from tests.old_library import make_environment
    except ImportError as error:
        raise BenchError(f"cannot make msgpack-rpc-python's environment: {error}; run bin/test once") from error
    try:
        return str(make_environment())
    except Exception as error:
        raise BenchError(f"cannot make msgpack-rpc-python's environment: {error}") from error
