"""What the engine and the clients must show, as data, and whether it did. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from bench.figures import Results, best

_Figure = Callable[[Results], Optional[float]]

__all__ = ["TARGETS", "Target", "Verdict", "judge"]

_OURS = "rpccluster"


@dataclass(frozen=True)
class Target:
    """A figure and its bound: at most ``limit``, or at least if ``is_floor``."""

    text: str
    figure: _Figure
    limit: float
    is_floor: bool = False


@dataclass(frozen=True)
class Verdict:
    """A target with the figure measured for it."""

    target: Target
    value: float

    @property
    def is_met(self) -> bool:
        return self.value >= self.target.limit if self.target.is_floor else self.value <= self.target.limit


def _ratio(variant: str, metric: str, other: str, own: str = _OURS) -> _Figure:
    return lambda results: results.of(variant).ratio(own, other, metric)


def _times_less(variant: str, metric: str, other: str) -> _Figure:
    return _ratio(variant, metric, _OURS, own=other)


def _figure(variant: str, metric: str, factor: float = 1.0) -> _Figure:
    def figure(results: Results) -> float | None:
        value = results.of(variant).best(_OURS, metric)
        return None if value is None else value * factor

    return figure


def _growth(kind: str) -> _Figure:
    """How much dearer a piece is in a message of a thousand than in one of 250: 1 is linear, 4 quadratic."""

    def growth(results: Results) -> float | None:
        few, many = (results.of(f"pieces {kind} {pieces}").best(_OURS, "cpu_us_per_piece") for pieces in (250, 1000))
        return many / few if few and many else None

    return growth


def _scaling(results: Results) -> float | None:
    series = results.of("scaling")
    return series.ratio("rpccluster, 2 workers", "rpccluster, 1 worker", "free_calls_per_second")


def _calls(variant: str, other: str) -> _Figure:
    """How many calls/s our client makes for each of another's."""
    return _ratio(variant, "calls_per_second", other)


def _batch(results: Results) -> float | None:
    together, alone = (results.of(variant).best(_OURS, "calls_per_second") for variant in ("client batch", "client"))
    return together / alone if together and alone else None


def _over_plain(kind: str) -> _Figure:
    """How many µs later a lone caller has the answer than from a plain method."""

    def over(results: Results) -> float | None:
        own, plain = (results.of("kinds one").best(name, "p50_us") for name in (kind, "plain"))
        return None if own is None or plain is None else own - plain

    return over


def _kind(kind: str) -> _Figure:
    return lambda results: results.of("kinds depth16").best(kind, "calls_per_second")


def _p99_beside(kind: str) -> _Figure:
    return _ratio("kinds beside", "p99_us", "nothing", own=kind)


def _later_beside(kind: str) -> _Figure:
    """How many ms later a plain call is answered, at the median, beside a method of this kind."""

    def beside(results: Results) -> float | None:
        own, alone = (results.of("kinds beside").best(name, "p50_us") for name in (kind, "nothing"))
        return None if own is None or alone is None else (own - alone) / 1e3

    return beside


def _reload(metric: str) -> _Figure:
    return lambda results: results.of("reload").median("rpccluster, 4 workers", metric)


_OTHER_POOLS = ("executor", "multiprocessing", "billiard", "pebble")


def _pools(variant: str, metric: str) -> _Figure:
    """Our pool's figure divided by the best of the others'."""

    def ratio(results: Results) -> float | None:
        series = results.of(variant)
        others = [value for name in _OTHER_POOLS for value in [series.best(name, metric)] if value is not None]
        own = series.best(_OURS, metric)
        return own / best(metric, others) if own is not None and others else None

    return ratio


TARGETS = (
    Target("64 × 1: CPU per call ÷ the floor's", _ratio("depth1", "cpu_us", "floor"), 1.9),
    Target("64 × 1: CPU per call ÷ uvloop's", _ratio("depth1", "cpu_us", "uvloop"), 1.1),
    Target("64 × 16: CPU per call ÷ uvloop's", _ratio("depth16", "cpu_us", "uvloop"), 1.1),
    Target("1 × 1: p50 ÷ the floor's", _ratio("one", "p50_us", "floor"), 1.35),
    Target("64 × 1: calls/s ÷ msgpackrpc's", _calls("depth1", "msgpackrpc"), 3, True),
    Target("64 × 16: calls/s ÷ msgpackrpc's", _calls("depth16", "msgpackrpc"), 15, True),
    Target("64 × 1: calls/s ÷ gunicorn's", _calls("depth1", "gunicorn"), 4, True),
    Target("64 × 1: calls/s ÷ zerorpc's", _calls("depth1", "zerorpc"), 4, True),
    Target("64 × 1: calls/s ÷ grpcio's", _calls("depth1", "grpcio"), 4, True),
    Target("64 × 1: zerorpc's CPU per call ÷ ours", _times_less("depth1", "cpu_us", "zerorpc"), 4, True),
    Target("64 × 1: grpcio's CPU per call ÷ ours", _times_less("depth1", "cpu_us", "grpcio"), 4, True),
    Target("1 MiB echoed: bytes/s ÷ the floor's", _ratio("payload 1 MiB", "megabytes_per_second", "floor"), 0.4, True),
    Target("bytes in 1 KiB pieces: a piece's cost, 1000 ÷ 250 pieces", _growth("bytes"), 1.5),
    Target("a list in 1 KiB pieces: a piece's cost, 1000 ÷ 250 pieces", _growth("list"), 1.5),
    Target("900 × sleep(0.01): ms over the ideal", _figure("blocking", "over_ideal_ms"), 100),
    Target("sum beside 900 sleeps: p99 in ms", _figure("blocking", "p99_us", 1e-3), 10),
    Target("thread=True, a lone caller: µs beside a plain method", _over_plain("thread"), 20),
    Target("async def, a lone caller: µs beside a plain method", _over_plain("coroutine"), 35),
    Target("thread=True, 64 × 16: calls/s", _kind("thread"), 60_000, True),
    Target("async def, 64 × 16: calls/s", _kind("coroutine"), 60_000, True),
    Target("beside a thread that sleeps in C: p99 ÷ alone", _p99_beside("sleep_in_c"), 2),
    Target("beside coroutines that sleep: p99 ÷ alone", _p99_beside("sleep_on_loop"), 2),
    Target("beside a thread that computes: ms more at the median", _later_beside("compute"), 1),
    Target("beside a pool that computes: ms more at the median", _later_beside("compute_in_pool"), 1),
    Target("empty tasks: tasks/s ÷ the best other pool's", _pools("tasks", "tasks_per_second"), 1, True),
    Target("one empty task in flight: p50 ÷ the best other pool's", _pools("tasks one", "p50_us"), 0.9),
    Target("tasks of 1 MiB: tasks/s ÷ the best other pool's", _pools("tasks 1 MiB", "tasks_per_second"), 1, True),
    Target("one task of 1 MiB in flight: p50 ÷ the best other pool's", _pools("tasks 1 MiB one", "p50_us"), 0.9),
    Target("another client beside 100,000 pipelined: p99 in ms", _figure("flood", "p99_us", 1e-3), 5),
    Target("a client that never reads: RSS growth in MiB", _figure("flood unread", "rss_growth_mib"), 64),
    Target("10,000 idle connections: RSS KiB each", _figure("idle", "rss_kib_per_connection"), 2),
    Target("200 µs of CPU a call: two workers ÷ one", _scaling, 1.7, True),
    Target("a HUP at 30 % of capacity: p99 ÷ the calm p99", _reload("p99_growth"), 2),
    Target("a HUP at 30 % of capacity: calls/s kept", _reload("kept"), 0.9, True),
    Target("Client: calls/s ÷ a bare socket's", _calls("client", "bare socket"), 0.95, True),
    Target("batch() of 100: calls/s ÷ one by one", _batch, 8, True),
    Target("aio.Client: calls/s ÷ a bare protocol's", _calls("client aio", "bare protocol"), 0.7, True),
    Target("aio.Client, 16 tasks: calls/s ÷ a bare protocol's", _calls("client aio 16", "bare protocol"), 0.7, True),
)


def judge(results: Results) -> list[Verdict]:
    """The verdicts for all targets whose figures were measured."""
    found = ((target, target.figure(results)) for target in TARGETS)
    return [Verdict(target, value) for target, value in found if value is not None]
