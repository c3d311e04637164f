"""Calls that cost next to nothing, one at a time and pipelined, and calls that carry a payload."""

from __future__ import annotations

from typing import Any

import msgpack

from bench.figures import Sample
from bench.load import Call
from bench.peers import Peer
from bench.scenarios.variant import Effort, Variant, only
from bench.stage import Measured, Stage

__all__ = ["depth1", "depth16", "figures_of", "one", "payload"]

_COLUMNS = ("calls_per_second", "cpu_us", "p50_us", "p99_us", "load_share")
_RPC = ("floor", "uvloop", "rpccluster", "msgpackrpc")
#: name, what is echoed, connections, calls in flight on each
_PAYLOADS: tuple[tuple[str, Any, int, int], ...] = (
    ("1 KiB", b"x" * (1 << 10), 64, 1),
    ("64 KiB", b"x" * (1 << 16), 16, 1),
    ("1 MiB", b"x" * (1 << 20), 4, 1),
    ("numbers", list(range(0, 100_000, 100)), 64, 1),
    ("strings", {f"key {number}": f"the string of key {number}" for number in range(50)}, 64, 1),
    ("record", {"id": 17, "name": "a name", "tags": ["one", "two"], "size": 1.5, "is_new": True, "of": None}, 64, 16),
)


def figures_of(measured: Measured, name: str) -> dict[str, float]:
    """The figures of one kind of call, with the CPU that each call took."""
    figures = measured.of(name)
    kept = {metric: figures[metric] for metric in ("calls_per_second", "p50_us", "p99_us", "max_us")}
    masters = {"master_cpu_us": measured.cpu.master / measured.calls * 1e6} if measured.cpu.master else {}
    shares = {"load_share": measured.load_share, "others_share": measured.others_share}
    return {**kept, **masters, **shares, "cpu_us": measured.cpu.workers / measured.calls * 1e6}


def _sum(stage: Stage, effort: Effort, peer: Peer, connections: int, depth: int) -> Sample:
    call = Call("sum", (1, 2), 3, slots=depth)
    return figures_of(stage.measure(peer, [call], connections, effort.seconds), "sum")


def one(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """The latency of a lone caller."""
    title = "sum(1, 2): 1 connection, 1 call in flight"
    return [Variant("one", title, peers, lambda peer: _sum(stage, effort, peer, 1, 1), _COLUMNS, "p50_us")]


def depth1(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """The cost of a call when each comes alone."""
    title = "sum(1, 2): 64 connections, 1 call in flight each"
    columns = (*_COLUMNS, "master_cpu_us")
    return [Variant("depth1", title, peers, lambda peer: _sum(stage, effort, peer, 64, 1), columns)]


def depth16(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """The cost of a call when sixteen come together."""
    title = "sum(1, 2): 64 connections, 16 calls in flight each"
    able = tuple(peer for peer in peers if peer.can_pipeline)
    return [Variant("depth16", title, able, lambda peer: _sum(stage, effort, peer, 64, 16), _COLUMNS)]


def payload(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """What moving bytes costs, there and back; for those who speak MessagePack-RPC."""

    def variant(name: str, value: Any, connections: int, slots: int) -> Variant:
        size = len(value) if type(value) is bytes else len(msgpack.packb(value))

        def sample(peer: Peer) -> Sample:
            call = Call("echo", (value,), value, slots=slots)
            figures = figures_of(stage.measure(peer, [call], connections, effort.seconds / 2), "echo")
            return {**figures, "megabytes_per_second": figures["calls_per_second"] * size / 1e6}

        what = f"{name} of bytes" if type(value) is bytes else f"{name}, {size} bytes"
        calls = "1 call" if slots == 1 else f"{slots} calls"
        title = f"echo({what}): {connections} connections, {calls} in flight each"
        columns = ("megabytes_per_second", "cpu_us", "p50_us", "p99_us")
        return Variant(f"payload {name}", title, only(peers, *_RPC), sample, columns)

    return [variant(*each) for each in _PAYLOADS]
