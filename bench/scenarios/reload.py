"""What a reload costs callers whose connections live through it."""

from __future__ import annotations

import os
import signal

from bench.figures import Sample
from bench.load import Call
from bench.peers import Peer, with_workers
from bench.scenarios.variant import Effort, Variant, only
from bench.stage import Stage

__all__ = ["reload"]

_WORKERS = 4
_CONNECTIONS = 40
_SHARE = 0.3  # of what the workers can do at most
_SECONDS = 2.0  # some four times as long as the workers take to replace each other


def reload(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """Calls paced at 30 % of what was measured, calm, and while a HUP replaces every worker; late ones count whole."""

    def paced(peer: Peer, interval_us: int, hups: list[int]) -> dict[str, float]:
        call = Call("sum", (1, 2), 3, interval_us=interval_us)

        def hang_up() -> None:
            while hups:
                os.kill(hups.pop(), signal.SIGHUP)

        with stage.opened(peer, stage.server(peer), [call], _CONNECTIONS, _SECONDS) as load:
            figures: dict[str, float] = load.run(hang_up)["calls"]["sum"]
            return figures

    def sample(peer: Peer) -> Sample:
        server = stage.server(peer)
        with stage.opened(peer, server, [Call("sum", (1, 2), 3)], _CONNECTIONS, effort.seconds) as load:
            capacity = load.run()["calls"]["sum"]["calls_per_second"]
        interval_us = int(1e6 * _CONNECTIONS / (_SHARE * capacity))
        calm = paced(peer, interval_us, [])
        before = set(server.worker_pids())
        moved = paced(peer, interval_us, [server.pid])
        server.await_others(before)
        return {
            "calls_per_second": moved["calls_per_second"],
            "kept": moved["calls_per_second"] / calm["calls_per_second"],
            "calm_p99_us": calm["p99_us"],
            "p99_us": moved["p99_us"],
            "p99_growth": moved["p99_us"] / calm["p99_us"],
            "max_us": moved["max_us"],
        }

    chosen = (with_workers(_WORKERS),) if only(peers, "rpccluster") else ()
    title = f"{_CONNECTIONS} connections paced at 30 % of capacity while a HUP replaces {_WORKERS} workers"
    return [
        Variant(
            "reload",
            title,
            chosen,
            sample,
            ("calls_per_second", "kept", "calm_p99_us", "p99_us", "p99_growth", "max_us"),
            "",
        )
    ]
