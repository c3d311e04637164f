"""Messages that arrive in many pieces: what a piece costs must not depend on how many came before it."""

from __future__ import annotations

from typing import Any

from bench.figures import Sample
from bench.load import Call
from bench.peers import Peer
from bench.scenarios.calls import figures_of
from bench.scenarios.variant import Effort, Variant, only
from bench.stage import Stage

__all__ = ["pieces"]

_PIECE_BYTES = 1024
_INTERVAL_US = 50  # long enough that each piece is read by itself


def pieces(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """Pieces of 1 KiB: 250 and 1000 of them to a message, which is bytes or a list of numbers."""
    values: dict[str, Any] = {"bytes": lambda size: b"x" * size, "list": lambda size: [1000] * (size // 3)}

    def variant(kind: str, count: int) -> Variant:
        def sample(peer: Peer) -> Sample:
            value = values[kind](count * _PIECE_BYTES)
            call = Call("echo", (value,), value, piece=_PIECE_BYTES, piece_interval_us=_INTERVAL_US)
            figures = figures_of(stage.measure(peer, [call], 1, effort.seconds / 2), "echo")
            return {**figures, "cpu_us_per_piece": figures["cpu_us"] / count}

        title = f"echo({kind}) sent in {count} pieces of 1 KiB, {_INTERVAL_US} µs apart: 1 connection"
        chosen = only(peers, "floor", "uvloop", "rpccluster")
        columns = ("cpu_us_per_piece", "cpu_us", "p50_us")
        return Variant(f"pieces {kind} {count}", title, chosen, sample, columns, "cpu_us_per_piece")

    return [variant(kind, count) for kind in values for count in (250, 1000)]
