"""Small plots of the last hour, as SVG that stands in the page. Pure; runs in the page's process.

Each has a sentence that tells the same, for who does not see it: the figure now, and the greatest of the hour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from rpccluster.services.web.hour import Sample, rates

__all__ = ["plots"]

WIDTH, HEIGHT = 360, 72
POINTS = 120
_MARGIN = 3  # above the highest and below the lowest point


def plots(samples: Sequence[Sample | None]) -> str:
    """Return the plots of ``samples``, the oldest first."""
    calls = rates([None if each is None else each.calls for each in samples])
    errors = rates([None if each is None else each.errors for each in samples])
    connections = [None if each is None else each.connections for each in samples]
    memory = [None if each is None else each.resident_bytes / 2**20 for each in samples]
    figures = [
        _figure("calls", "Calls", calls, lambda value: f"{_short(value)}/s"),
        _figure("errors", "Errors", errors, lambda value: f"{_short(value)}/s"),
        _figure("connections", "Connections", connections, _short),
        _figure("memory", "Memory", memory, lambda value: f"{_short(value)} MiB"),
    ]
    return f'<div class="plots">{"".join(figures)}</div>'


def _short(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _figure(key: str, title: str, values: Sequence[float | None], shown: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    now = shown(known[-1]) if known else "–"
    most = shown(max(known)) if known else "–"
    told = f"{title} in the last hour: now {now}, at most {most}."
    lines = "".join(f'<polyline points="{line}"/>' for line in _lines(values))
    return (
        f'<figure data-key="{key}"><figcaption><span class="title">{escape(title)}</span> '
        f'<span class="now">{escape(now)}</span> <span class="most">at most {escape(most)}</span></figcaption>'
        f'<svg role="img" aria-label="{escape(told)}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
        f'<line x1="0" y1="{HEIGHT - 1}" x2="{WIDTH}" y2="{HEIGHT - 1}"/>{lines}</svg></figure>'
    )


def _lines(values: Sequence[float | None]) -> list[str]:
    """Return the points of each stretch without a gap."""
    points = _thinned(values)
    top = max((value for value in points if value is not None), default=0.0) or 1.0
    step = WIDTH / max(1, len(points) - 1)
    lines: list[list[str]] = [[]]
    for place, value in enumerate(points):
        if value is None:
            lines.append([])
        else:
            height = HEIGHT - _MARGIN - value / top * (HEIGHT - 2 * _MARGIN)
            lines[-1].append(f"{place * step:.0f},{height:.1f}")
    return [" ".join([*line, line[0]] if len(line) == 1 else line) for line in lines if line]


def _thinned(values: Sequence[float | None]) -> list[float | None]:
    """Return at most `POINTS` values: the greatest of each few neighbours, so that no peak is lost."""
    size = max(1, -(-len(values) // POINTS))
    thinned: list[float | None] = []
    for start in range(0, len(values), size):
        known = [value for value in values[start : start + size] if value is not None]
        thinned.append(max(known) if known else None)
    return thinned
