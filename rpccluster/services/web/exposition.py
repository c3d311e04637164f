"""Writes families of metrics: in Prometheus' text format, or as OpenMetrics where the scraper asks for it. Pure.

Both are lines of a name, labels and a value. They differ in where a counter's ``_total`` belongs to its name, and in
the end: OpenMetrics has one, so that a cut-off answer is noticed. Runs in the page's process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from rpccluster.metrics.families import Family, Labels

__all__ = ["OPEN_METRICS", "TEXT", "negotiate", "written"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_OPEN = "application/openmetrics-text"
_PLAIN = ("text/plain", "text/*", "*/*")


def negotiate(accept: str) -> str:
    """Return the content type for a header ``Accept``: OpenMetrics if it stands there and no text is preferred."""
    weights: dict[str, float] = {}
    for item in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        weights[kind] = max(weights.get(kind, 0.0), _weight(parameters))
    wished = weights.get(_OPEN, 0.0)
    plain = max((weights.get(kind, 0.0) for kind in _PLAIN[:2]), default=0.0)
    return OPEN_METRICS if wished > 0.0 and wished >= plain else TEXT


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0.0 <= weight <= 1.0 else 0.0
    return 1.0


def written(families: Iterable[Family], content_type: str = TEXT) -> bytes:
    """Return the exposition of ``families``."""
    is_open = content_type == OPEN_METRICS
    lines = [line for family in families for line in _family(family, is_open=is_open)]
    if is_open:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode() if lines else b""


def _family(family: Family, *, is_open: bool) -> Iterator[str]:
    is_counter = family.kind == "counter"
    name = f"{family.name}_total" if is_counter and not is_open else family.name
    help_text = _escaped(family.help, is_quoted=is_open)
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {family.kind}"
    for suffix, labels, value in family.samples:
        yield f"{family.name}{suffix}{_labels(labels)} {_number(value)}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join([f'{name}="{_escaped(value)}"' for name, value in labels]) + "}"


def _escaped(text: str, *, is_quoted: bool = True) -> str:
    if not text.isascii():  # a method's name may hold bytes that are no UTF-8
        text = text.encode("utf-8", "backslashreplace").decode()
    if "\\" in text or "\n" in text or '"' in text:
        text = text.replace("\\", r"\\").replace("\n", r"\n")
        text = text.replace('"', r"\"") if is_quoted else text
    return text


def _number(value: int | float) -> str:
    if isinstance(value, int):
        return str(value)
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
