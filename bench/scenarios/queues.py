"""Queues between processes: ours, on disk before a put is answered, beside others, most of which promise less."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.build import CHECKOUT
from bench.errors import BenchError
from bench.figures import Sample
from bench.peers import QUEUES, Peer
from bench.scenarios.variant import Effort, Variant
from bench.stage import Stage

__all__ = ["queues"]

_COLUMNS = ("items_per_second",)
_MOST_ROUNDS = 3
_FILLS = 3  # times as long as it is taken from
_ENDS_SECONDS = 60


def queues(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """Items of 100 bytes: put by 1, 4 and 64 processes and by 64 coroutines; taken and acked by 64 processes."""
    is_wanted = any(peer.name == "rpccluster" for peer in peers)

    def variant(name: str, title: str, work: str, processes: int, *, is_ours: bool = False) -> Variant:
        def sample(peer: Peer) -> Sample:
            return _measured(peer.name, work, processes, effort.seconds)

        chosen = tuple(peer for peer in QUEUES if is_wanted and (peer.name == "rpccluster" or not is_ours))
        return Variant(name, title, chosen, sample, _COLUMNS, _COLUMNS[0], most_rounds=_MOST_ROUNDS)

    return [
        variant("queue put 1", "items put by one process", "put", 1),
        variant("queue put 4", "items put by 4 processes", "put", 4),
        variant("queue put 64", "items put by 64 processes", "put", 64),
        variant("queue put aio", "items put by 64 coroutines in two processes", "aio", 2, is_ours=True),
        variant("queue put_many", "items put by two processes, 100 at a time", "put_many", 2),
        variant("queue get 64", "items taken and acked by 64 processes", "get", 64),
        variant("queue get_many 64", "items taken and acked by 64 processes, up to 32 at a time", "get_many", 64),
    ]


def _measured(kind: str, work: str, processes: int, seconds: float) -> Sample:
    with _served(kind) as address:
        if work.startswith("get"):
            _load(kind, address, "put_many", 4, _FILLS * seconds)
        told = _load(kind, address, work, processes, seconds)
    return {"items_per_second": told["count"] / told["seconds"]}


@contextmanager
def _served(kind: str) -> Iterator[str]:
    command = [sys.executable, "-m", "bench.servers.queue_server", kind]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        try:
            address = server.stdout.readline().strip()
            if not address:
                raise BenchError(f"{kind}: it did not start")
            yield address
        finally:
            server.stdin.close()
            server.wait(_ENDS_SECONDS)


def _load(kind: str, address: str, work: str, processes: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.loads.queue_load", kind, address, work, str(processes), str(seconds)]
    most = 60 + 10 * seconds
    try:
        ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=most, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{kind}: it did not end within {most:g} seconds") from None
    if ran.returncode:
        raise BenchError(f"{kind}: {(ran.stderr.strip().splitlines() or ['it ended'])[-1]}")
    told: dict[str, float] = json.loads(ran.stdout)
    return told
