"""Figures to text: tables as Markdown, everything as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.figures import METRICS, Results, Series, median
from bench.peers import BEFORE, PEERS, RPCCLUSTER
from bench.scenarios.variant import Variant
from bench.targets import judge

__all__ = ["as_json", "as_text", "table", "variant_table"]

_DISTURBED = 0.1  # cores
_REFERENCES = ("floor", "uvloop", "bare socket", "bare protocol")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned; the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:]))]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def variant_table(variant: Variant, series: Series) -> str:
    """A variant's title and figures, the best round and in brackets the median, with ratios of the best."""
    references = [name for name in _REFERENCES if variant.against and series.best(name, variant.against) is not None]
    label = METRICS[variant.against].label if variant.against else ""
    header = ["", *(METRICS[metric].label for metric in variant.columns), *(f"{label} ÷ {name}" for name in references)]
    names = [peer.name for peer in variant.peers if peer.name in series.samples]
    rows = [
        [
            _marked(name),
            *(_cell(series, name, metric) for metric in variant.columns),
            *(_number(series.ratio(name, reference, variant.against), ".2f") for reference in references),
        ]
        for name in names
    ]
    failures = [f"{peer} was not measured: {reason}" for peer, reason in series.failures.items()]
    parts = [f"### {variant.name}: {variant.title}", table(header, rows) if rows else "nobody was measured"]
    return "\n\n".join([*parts, *_pairs(variant, series), *failures, *_disturbance(series)])


def _pairs(variant: Variant, series: Series) -> list[str]:
    """This build beside another, pair by pair."""
    told = []
    for metric in variant.columns:
        ratios = series.pair_ratios(RPCCLUSTER.name, BEFORE, metric)
        if ratios:
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            told.append(f"{METRICS[metric].label} {median(ratios):.3f} ({spread}, {len(ratios)} pairs)")
    return [f"{RPCCLUSTER.name} ÷ {BEFORE}, medians: {'; '.join(told)}"] if told else []


def _disturbance(series: Series) -> list[str]:
    """A warning when the machine was not ours alone."""
    shares = [share for peer in series.samples for share in series.values(peer, "others_share")]
    if not shares or max(shares) < _DISTURBED:
        return []
    return [f"Others used {median(shares):.2f} cores meanwhile at the median, {max(shares):.2f} in the worst round."]


def _marked(name: str) -> str:
    """A star where the peer's own client was the load, so that calls/s and latency are the client's too."""
    return f"{name} *" if name in PEERS and not PEERS[name].has_fast_load else name


def _cell(series: Series, peer: str, metric: str) -> str:
    """The best, and in brackets the median if there was more than one round."""
    written = METRICS[metric].format
    own = _number(series.best(peer, metric), written)
    is_alone = len(series.values(peer, metric)) < 2
    return own if is_alone else f"{own} ({_number(series.median(peer, metric), written)})"


def _number(value: float | None, written: str) -> str:
    return "-" if value is None else format(value, written)


def as_text(head: dict[str, str], variants: Sequence[Variant], results: Results) -> str:
    """The whole report: the machine, a table for each variant, what the figures must show."""
    parts = ["\n".join(f"{name}: {fact}" for name, fact in head.items())]
    parts.append(
        "Best of the rounds (median). CPU is the serving process's, user and system. Every reply was checked.\n"
        "* called by its own client in Python, which is the limit of calls/s and latency: compare its CPU per call."
    )
    parts += [variant_table(variant, results.of(variant.name)) for variant in variants if variant.peers]
    verdicts = judge(results)
    if verdicts:
        rows = [
            [
                verdict.target.text,
                f"{verdict.value:.3f}",
                f"{'≥' if verdict.target.is_floor else '≤'} {verdict.target.limit:g}",
                "yes" if verdict.is_met else "NO",
            ]
            for verdict in verdicts
        ]
        parts.append("### what it must show\n\n" + table(["", "measured", "bound", "met"], rows))
    return "\n\n".join(parts)


def as_json(head: dict[str, str], variants: Sequence[Variant], results: Results) -> str:
    """Everything, each round's samples too."""
    whole: dict[str, Any] = {"head": head, "variants": [_variant(each, results.of(each.name)) for each in variants]}
    whole["targets"] = [
        {
            "target": verdict.target.text,
            "value": verdict.value,
            "bound": verdict.target.limit,
            "at_least": verdict.target.is_floor,
            "met": verdict.is_met,
        }
        for verdict in judge(results)
    ]
    return json.dumps(whole, indent=1, ensure_ascii=False)


def _variant(variant: Variant, series: Series) -> dict[str, Any]:
    peers = {}
    for peer, samples in series.samples.items():
        metrics = sorted({metric for sample in samples for metric in sample})
        peers[peer] = {
            "best": {metric: series.best(peer, metric) for metric in metrics},
            "median": {metric: series.median(peer, metric) for metric in metrics},
            "rounds": [dict(sample) for sample in samples],
        }
    return {"name": variant.name, "title": variant.title, "peers": peers, "failures": series.failures}
