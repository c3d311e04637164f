"""More workers on more cores, for methods that need them."""

from __future__ import annotations

from bench.figures import Sample
from bench.load import Call
from bench.peers import Peer, with_workers
from bench.scenarios.calls import figures_of
from bench.scenarios.variant import Effort, Variant, only
from bench.stage import Stage

__all__ = ["free_share", "scaling"]

_BURNT_US = 200


def free_share(cores: int, load_share: float, is_shared: bool) -> float:
    """The part of the workers' cores that the load left them; 1 where it ran on a core of its own."""
    return (cores - load_share) / cores if is_shared else 1.0


def scaling(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """A method that burns CPU, with one worker and with two.

    Where there is no third core the load runs on the two workers' cores, and what it used of them is
    given back by proportion: so it is on neither's account.
    """

    def sample(peer: Peer) -> Sample:
        call = Call("burn", (_BURNT_US,), _BURNT_US)
        figures = figures_of(stage.measure(peer, [call], 32, effort.seconds), "burn")
        share = free_share(peer.workers, figures["load_share"], stage.cores.is_shared(peer.workers))
        return {**figures, "free_calls_per_second": figures["calls_per_second"] / share}

    able = len(stage.cores.allowed) >= 2 and only(peers, "rpccluster")
    chosen = (with_workers(1), with_workers(2)) if able else ()
    where = "on the workers' own cores, its share given back" if stage.cores.is_shared(2) else "on a third core"
    title = f"a method that burns {_BURNT_US} µs of CPU: 32 connections, 1 call in flight each; the load of two {where}"
    columns = ("calls_per_second", "free_calls_per_second", "cpu_us", "load_share")
    return [Variant("scaling", title, chosen, sample, columns, "")]
