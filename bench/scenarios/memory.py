"""What connections cost while nobody calls: resident memory of the server."""

from __future__ import annotations

import resource

from bench.figures import Sample
from bench.load import Call
from bench.peers import Peer
from bench.scenarios.variant import Effort, Variant, only
from bench.stage import Stage

__all__ = ["idle"]

_CONNECTIONS = 10_000
_RESERVED_FILES = 200
_WARM_UP_CONNECTIONS = 10


def idle(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """Connections that each made one call and are idle now, on a server that has seen little else."""
    count = min(_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _RESERVED_FILES)

    def sample(peer: Peer) -> Sample:
        call = [Call("sum", (1, 2), 3)]
        with stage.fresh(peer) as server:

            def rss_with(connections: int) -> int:
                with stage.opened(peer, server, call, connections, 0):
                    return server.rss_bytes()

            before = rss_with(_WARM_UP_CONNECTIONS)
            return {"rss_kib_per_connection": (rss_with(count) - before) / count / 1024}

    title = f"{count:,} connections that each made one call and are idle"
    chosen = only(peers, "floor", "uvloop", "rpccluster", "msgpackrpc", "gunicorn")
    metric = "rss_kib_per_connection"
    return [Variant("idle", title, chosen, sample, (metric,), metric, most_rounds=2)]
