"""Callers that wait beside others: beside methods that block, beside a flood, beside one who never reads."""

from __future__ import annotations

from bench.figures import Sample
from bench.load import Call
from bench.peers import Peer
from bench.scenarios.calls import figures_of
from bench.scenarios.variant import Effort, Variant, only
from bench.stage import Stage

__all__ = ["blocking", "flood"]

_SLEEP_SECONDS = 0.01
_MIB = 1 << 20


def blocking(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """900 sleeps at once over 10 connections, and a sum on each of these every millisecond meanwhile."""

    def sample(peer: Peer) -> Sample:
        sums = Call("sum", (1, 2), 3, interval_us=1000)
        sleeps = Call("sleep", (_SLEEP_SECONDS,), _SLEEP_SECONDS, slots=90, limit=900)
        measured = stage.measure(peer, [sums, sleeps], 10, 10)
        return {
            **figures_of(measured, "sum"),
            "over_ideal_ms": (measured.of("sleep")["seconds"] - _SLEEP_SECONDS) * 1e3,
        }

    title = "900 × sleep(0.01) at once over 10 connections; p50 and p99 are of sums on the same connections"
    columns = ("over_ideal_ms", "p50_us", "p99_us", "max_us")
    return [Variant("blocking", title, only(peers, "rpccluster"), sample, columns, "", repeats=3)]


def _probe(first: int) -> Call:
    """Four quiet clients, a call each every 10 ms; late ones count from when they were due."""
    return Call("sum", (1, 2), 3, first=first, count=4, interval_us=10_000, name="probe")


def flood(stage: Stage, peers: tuple[Peer, ...], effort: Effort) -> list[Variant]:
    """One connection that keeps 100,000 calls in flight, or never reads a reply; others' latency meanwhile."""

    def pipelined(peer: Peer) -> Sample:
        calls = [_probe(1), Call("sum", (1, 2), 3, first=0, count=1, slots=100_000, name="flood")]
        measured = stage.measure(peer, calls, 5, 2 * effort.seconds)
        figures = figures_of(measured, "probe")
        return {**figures, "calls_per_second": measured.of("flood")["calls_per_second"]}

    def unread(peer: Peer) -> Sample:
        text = "x" * 1024
        calls = [_probe(1), Call("echo", (text,), text, first=0, count=1, slots=64, is_deaf=True, name="unread")]
        with stage.fresh(peer) as server:
            stage.measure(peer, [_probe(0)], 4, 0.2, server=server)  # what a first client costs is not growth
            seen = [server.rss_bytes()]

            def watch() -> None:
                seen.append(server.rss_bytes())

            measured = stage.measure(peer, calls, 5, 2 * effort.seconds, server=server, meanwhile=watch)
        return {**figures_of(measured, "probe"), "rss_growth_mib": (max(seen) - seen[0]) / _MIB}

    chosen = only(peers, "floor", "uvloop", "rpccluster", "msgpackrpc")
    bounded = only(peers, "floor", "uvloop", "rpccluster")
    latency = ("p50_us", "p99_us", "max_us")
    return [
        Variant(
            "flood",
            "1 connection with 100,000 calls in flight (its calls/s); p50 and p99 of 4 other clients",
            chosen,
            pipelined,
            ("calls_per_second", *latency),
            "p99_us",
        ),
        Variant(
            "flood unread",
            "1 connection that sends echo(1 KiB) and never reads; p50 and p99 of 4 other clients",
            bounded,
            unread,
            ("rss_growth_mib", *latency),
            "p99_us",
            most_rounds=2,
        ),
    ]
