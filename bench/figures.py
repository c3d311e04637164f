"""Figures of many rounds: their best, their median, their ratios. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["METRICS", "Metric", "Results", "Sample", "Series", "best", "median"]

#: What one run gave: metric → value.
Sample = Mapping[str, float]


@dataclass(frozen=True)
class Metric:
    """What a figure is called in the tables, how it is written, and which way is better."""

    label: str
    format: str = ",.1f"
    is_more_better: bool = False


METRICS = {
    "calls_per_second": Metric("calls/s", ",.0f", True),
    "tasks_per_second": Metric("tasks/s", ",.0f", True),
    "items_per_second": Metric("items/s", ",.0f", True),
    "program_cpu_us": Metric("the program's CPU µs/task", ",.2f"),
    "free_calls_per_second": Metric("calls/s, load's share given back", ",.0f", True),
    "megabytes_per_second": Metric("MB/s echoed", ",.1f", True),
    "cpu_us": Metric("CPU µs/call", ",.2f"),
    "client_cpu_us": Metric("client's CPU µs/call", ",.2f"),
    "master_cpu_us": Metric("master's CPU µs/call", ",.3f"),
    "cpu_us_per_piece": Metric("CPU µs/piece", ",.2f"),
    "p50_us": Metric("p50 µs"),
    "p99_us": Metric("p99 µs"),
    "max_us": Metric("max µs"),
    "kept": Metric("calls/s ÷ calm", ".3f", True),
    "calm_p99_us": Metric("calm p99 µs"),
    "p99_growth": Metric("p99 ÷ calm", ".2f"),
    "over_ideal_ms": Metric("ms over the ideal"),
    "rss_kib_per_connection": Metric("RSS KiB/connection", ",.2f"),
    "rss_growth_mib": Metric("RSS growth MiB", ",.1f"),
    "others_share": Metric("cores used by others", ".2f"),
    "load_share": Metric("load's share of a core", ".2f"),
}


def best(metric: str, values: Iterable[float]) -> float:
    """The best of the values of this metric. Raises ValueError when there are none."""
    return max(values) if METRICS[metric].is_more_better else min(values)


def median(values: Iterable[float]) -> float:
    """The median. Raises `statistics.StatisticsError` (a ValueError) when there are no values."""
    return statistics.median(values)


@dataclass
class Series:
    """The rounds of one variant of a scenario: samples by peer, and why a peer has none."""

    variant: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, peer: str, sample: Sample) -> None:
        self.samples.setdefault(peer, []).append(sample)

    def fail(self, peer: str, reason: str) -> None:
        """The peer could not be measured, or answered wrongly: what it had is not to be believed."""
        self.samples.pop(peer, None)
        self.failures[peer] = reason

    def values(self, peer: str, metric: str) -> list[float]:
        """A metric of every round; empty if the peer was not measured."""
        return [sample[metric] for sample in self.samples.get(peer, []) if metric in sample]

    def best(self, peer: str, metric: str) -> float | None:
        """The best round, None if there is none."""
        values = self.values(peer, metric)
        return best(metric, values) if values else None

    def median(self, peer: str, metric: str) -> float | None:
        """The median round, None if there is none."""
        values = self.values(peer, metric)
        return median(values) if values else None

    def pair_ratios(self, peer: str, other: str, metric: str) -> list[float]:
        """The peer's figure divided by another's, round by round."""
        return [own / others for own, others in zip(self.values(peer, metric), self.values(other, metric)) if others]

    def ratio(self, peer: str, other: str, metric: str) -> float | None:
        """The peer's best divided by another's; None if one is missing."""
        own, others = self.best(peer, metric), self.best(other, metric)
        return own / others if own is not None and others else None


class Results:
    """All series of a run, by variant."""

    def __init__(self) -> None:
        self._series: dict[str, Series] = {}

    def of(self, variant: str) -> Series:
        """The series of a variant; an empty one if it was not run."""
        return self._series.setdefault(variant, Series(variant))
