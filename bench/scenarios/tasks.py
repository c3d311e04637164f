"""Pools of processes in one program: `rpccluster.TaskPool` beside others, the same tasks over two processes each."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.build import CHECKOUT
from bench.errors import BenchError
from bench.figures import Sample
from bench.peers import POOLS, Peer
from bench.scenarios.variant import Effort, Variant
from bench.stage import Stage

__all__ = ["tasks"]

_MIB = 1 << 20
_COLUMNS = ("tasks_per_second", "program_cpu_us", "p50_us", "p99_us")


def tasks(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """Tasks that return their argument: many at once, and one after another; with a small one, and with 1 MiB."""
    is_wanted = any(peer.name == "rpccluster" for peer in peers)

    def variant(name: str, title: str, size: int, at_once: int) -> Variant:
        def sample(peer: Peer) -> Sample:
            return _measured(peer.name, size, at_once, effort.seconds)

        columns = _COLUMNS if at_once == 1 else _COLUMNS[:2]
        return Variant(name, title, POOLS if is_wanted else (), sample, columns, columns[0])

    return [
        variant("tasks", "tasks that return a number: 1,000 at once, two processes", 0, 1000),
        variant("tasks one", "tasks that return a number: one in flight", 0, 1),
        variant("tasks 1 MiB", "tasks that return 1 MiB: 20 at once, two processes", _MIB, 20),
        variant("tasks 1 MiB one", "tasks that return 1 MiB: one in flight", _MIB, 1),
    ]


def _measured(pool: str, size: int, at_once: int, seconds: float) -> Sample:
    command = [sys.executable, "-m", "bench.loads.task_load", pool, str(size), str(at_once), str(seconds)]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60 + 10 * seconds, check=False)
    if ran.returncode:
        raise BenchError(f"{pool}: {(ran.stderr.strip().splitlines() or ['it ended'])[-1]}")
    told = json.loads(ran.stdout)
    return {
        "tasks_per_second": told["count"] / told["seconds"],
        "program_cpu_us": told["cpu_seconds"] / told["count"] * 1e6,
        "p50_us": told["p50"] * 1e6,
        "p99_us": told["p99"] * 1e6,
    }
