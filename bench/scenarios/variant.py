"""What a scenario is made of: variants, each a way to take one sample of one peer. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.figures import Sample
from bench.peers import BEFORE, RPCCLUSTER, Peer

__all__ = ["Effort", "Variant", "only"]


@dataclass(frozen=True)
class Effort:
    """How often and how long: rounds, and seconds of each run."""

    rounds: int = 5
    seconds: float = 1.0


@dataclass(frozen=True)
class Variant:
    """One table: its title, who is in it, how one sample of a peer is taken, which metrics are shown.

    ``against`` is the metric of the ratio columns, empty for none; ``repeats`` are the samples a round takes,
    for runs that are over in no time; ``most_rounds`` bounds what is slow to set up.
    """

    name: str
    title: str
    peers: tuple[Peer, ...]
    sample: Callable[[Peer], Sample]
    columns: tuple[str, ...]
    against: str = "cpu_us"
    repeats: int = 1
    most_rounds: int = 1000


def only(peers: Iterable[Peer], *names: str) -> tuple[Peer, ...]:
    """Those of the peers that have one of the names; another build of this project counts as this one."""
    wanted = {*names, BEFORE} if RPCCLUSTER.name in names else {*names}
    return tuple(peer for peer in peers if peer.name in wanted)
