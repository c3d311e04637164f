"""The families of the exposition: names, kinds, helps and samples, made of totals. Pure; the process of `[metrics]`.

How they are written down is another's affair. All times are in seconds. No label tells a worker or a process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from rpccluster.metrics.layout import BOUNDS_SECONDS, Block
from rpccluster.metrics.totals import Histogram, Totals

__all__ = ["Family", "Labels", "Sample", "families"]

#: Names and values of a sample's labels, in order.
Labels = Sequence[tuple[str, str]]


class Sample(NamedTuple):
    """One line: ``suffix`` is what the family's name lacks, such as ``_bucket``; a ``value`` is a count or seconds."""

    suffix: str
    labels: Labels
    value: int | float


class Family(NamedTuple):
    """Samples of one name. ``kind`` is counter, gauge or histogram.

    The name of a counter has no ``_total``: that is the suffix of its samples, as OpenMetrics wants it.
    """

    name: str
    kind: str
    help: str
    samples: Sequence[Sample]


def families(totals: Totals, limits: Iterable[str] = (), *, is_leader: bool | None = None) -> list[Family]:
    """Return all families that come from ``totals``.

    ``limits`` are the names of limits that are shown before they are reached, too. ``is_leader`` is None in a cluster
    without `[leadership]`.
    """
    methods = totals.methods()
    hits = {**dict.fromkeys(limits, 0), **totals.counts(Block.LIMIT)}
    found = [
        _counter("calls", "Calls that have ended, by method and outcome.", _outcomes(totals)),
        Family(
            "rpccluster_call_duration_seconds",
            "histogram",
            "Time from the begin of a call to its end, of all calls that have begun.",
            [sample for name, calls in methods.items() for sample in _samples(calls.durations, [("method", name)])],
        ),
        _durations("call_queue", "Time that calls have waited for their turn.", totals.queued),
        _gauge("connections", "Open connections of clients.", [([], totals.connections)]),
        _counter("restarts", "Processes that have ended and were replaced, by group and reason.", _restarts(totals)),
        _counter("limit_hits", "Times that a limit was reached.", (([("limit", n)], hits[n]) for n in sorted(hits))),
        _counter("loop_stalls", "Times that a loop was held up longer than stall_warning.", [([], totals.stalls)]),
        _counter("handovers", "Connections that were moved to another worker.", [([], totals.handovers.total)]),
        _durations("handover", "Time from giving a connection away to serving it elsewhere.", totals.handovers),
        _gauge("settings_version", "Version of the settings in force.", _versions(totals.settings_versions)),
    ]
    if is_leader is not None:
        found.append(_gauge("leader", "Whether this cluster leads (1) or not (0).", [([], int(is_leader))]))
    return found


def _outcomes(totals: Totals) -> Iterator[tuple[Labels, int]]:
    for name, calls in totals.methods().items():
        for outcome, count in calls.outcomes.items():
            yield [("method", name), ("outcome", outcome)], count


def _restarts(totals: Totals) -> Iterator[tuple[Labels, int]]:
    for name, count in totals.counts(Block.RESTARTS).items():
        group, _, reason = name.partition("\n")
        yield [("group", group), ("reason", reason)], count


def _versions(versions: Mapping[str, int]) -> Iterator[tuple[Labels, int]]:
    for group in sorted(versions):
        yield [("group", group)], versions[group]


def _counter(name: str, meaning: str, values: Iterable[tuple[Labels, int]]) -> Family:
    return Family(f"rpccluster_{name}", "counter", meaning, [Sample("_total", *value) for value in values])


def _gauge(name: str, meaning: str, values: Iterable[tuple[Labels, int]]) -> Family:
    return Family(f"rpccluster_{name}", "gauge", meaning, [Sample("", *value) for value in values])


def _durations(name: str, meaning: str, histogram: Histogram) -> Family:
    return Family(f"rpccluster_{name}_seconds", "histogram", meaning, list(_samples(histogram, [])))


_ENDS = (*(f"{bound:.9g}" for bound in BOUNDS_SECONDS), "+Inf")


def _samples(histogram: Histogram, labels: Labels) -> Iterator[Sample]:
    count = 0
    for end, count in zip(_ENDS, accumulate(histogram.buckets)):
        yield Sample("_bucket", [*labels, ("le", end)], count)
    yield Sample("_sum", labels, histogram.seconds)
    yield Sample("_count", labels, count)
