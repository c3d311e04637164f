"""The clients, each on one connection: what they add to what the kernel, the codec and the server cost anyway."""

from __future__ import annotations

from bench.figures import Sample
from bench.load import Call
from bench.peers import BEFORE, Peer, client
from bench.scenarios.calls import figures_of
from bench.scenarios.variant import Effort, Variant
from bench.stage import Stage

__all__ = ["clients"]

_COLUMNS = ("calls_per_second", "client_cpu_us", "p50_us", "p99_us")
_TOGETHER = 100

_BARE = client("bare socket", "bare_load")
_OURS = client("rpccluster", "client_load")
_OLD = client("msgpackrpc", "msgpackrpc_load", python="{old_python}")
_ZERORPC = client("zerorpc", "zerorpc_load", "zerorpc")
_GRPCIO = client("grpcio", "grpc_blocking_load", "grpcio")
_BARE_AIO = client("bare protocol", "bare_aio_load")
_OUR_AIO = client("rpccluster", "aio_load")
_GRPCIO_AIO = client("grpcio", "grpc_load", "grpcio")

_BLOCKING = (_BARE, _OURS, _OLD, _ZERORPC, _GRPCIO)
_ON_ASYNCIO = (_BARE_AIO, _OUR_AIO, _GRPCIO_AIO)


def clients(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """One call at a time, many together, and on asyncio; rpccluster serves, but zerorpc's and grpcio's own servers."""
    names = {peer.name for peer in peers}
    before = [peer.folder for peer in peers if peer.name == BEFORE]
    blocking = (*_BLOCKING, *(client(BEFORE, "client_load", folder=folder) for folder in before))
    on_asyncio = (*_ON_ASYNCIO, *(client(BEFORE, "aio_load", folder=folder) for folder in before))

    def variant(name: str, title: str, chosen: tuple[Peer, ...], slots: int) -> Variant:
        def sample(peer: Peer) -> Sample:
            measured = stage.measure(peer, [Call("sum", (1, 2), 3, slots=slots)], 1, effort.seconds)
            client_cpu_us = measured.report["cpu_seconds"] / measured.calls * 1e6
            return {**figures_of(measured, "sum"), "client_cpu_us": client_cpu_us}

        able = tuple(peer for peer in chosen if peer.name in names or peer.name.startswith("bare"))
        return Variant(name, f"sum(1, 2): {title}", able, sample, _COLUMNS, "calls_per_second")

    return [
        variant("client", "clients that block, one call at a time", blocking, 1),
        variant("client batch", f"{_TOGETHER} calls together, as each client does it", blocking, _TOGETHER),
        variant("client aio", "clients on asyncio, one call at a time", on_asyncio, 1),
        variant("client aio 16", "clients on asyncio, 16 tasks that call", on_asyncio, 16),
    ]
