"""What a call costs by the kind of its method: in a greenlet, in a native thread, on the asyncio loop."""

from __future__ import annotations

from bench.figures import Sample
from bench.load import Call
from bench.peers import KINDS, Peer
from bench.scenarios.calls import figures_of
from bench.scenarios.variant import Effort, Variant, only
from bench.stage import Stage

__all__ = ["kinds"]

_COLUMNS = ("calls_per_second", "cpu_us", "p50_us", "p99_us", "load_share")


def kinds(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """A lone caller, and many calls in flight, of a method of each kind that adds two numbers."""

    def variant(name: str, connections: int, depth: int) -> Variant:
        def sample(peer: Peer) -> Sample:
            call = Call(peer.name, (1, 2), 3, slots=depth)
            return figures_of(stage.measure(peer, [call], connections, effort.seconds), peer.name)

        noun = "connection" if connections == 1 else "connections"
        title = f"a + b, by the kind of its method: {connections} {noun}, {depth} in flight each"
        return Variant(name, title, KINDS if only(peers, "rpccluster") else (), sample, _COLUMNS, "")

    return [variant("kinds one", 1, 1), variant("kinds depth16", 64, 16)]
