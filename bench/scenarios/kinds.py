"""What a call costs by the kind of its method: in a greenlet, in a native thread, on the asyncio loop, in a pool."""

from __future__ import annotations

from bench.figures import Sample
from bench.load import Call
from bench.peers import BESIDE, KINDS, Peer
from bench.scenarios.calls import figures_of
from bench.scenarios.variant import Effort, Variant, only
from bench.stage import Stage

__all__ = ["kinds"]

_DISTURBED_US = 200_000  # that a disturbing call takes; the next one follows at once
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

    return [variant("kinds one", 1, 1), variant("kinds depth16", 64, 16), _beside(stage, peers, effort)]


def _beside(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> Variant:
    """Plain calls, a call each 2 ms on each of four connections, and on a fifth what must not hold them up."""

    def sample(peer: Peer) -> Sample:
        calls = [Call("plain", (1, 2), 3, first=0, count=4, interval_us=2000)]
        if peer.name != "nothing":
            slots = 100 if peer.name == "sleep_on_loop" else 1
            calls.append(Call(peer.name, (_DISTURBED_US,), _DISTURBED_US, first=4, count=1, slots=slots))
        return figures_of(stage.measure(peer, calls, 5, effort.seconds), "plain")

    title = "a + b in a greenlet, 4 connections, a call each 2 ms; beside what is called on a fifth"
    chosen = BESIDE if only(peers, "rpccluster") else ()
    return Variant("kinds beside", title, chosen, sample, ("p50_us", "p99_us", "max_us"), "")
