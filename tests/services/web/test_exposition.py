"""What Prometheus reads: both formats, read by the official client's parsers; and duplicates, which they do not see."""

from __future__ import annotations

from collections import Counter

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_text

from rpccluster.metrics.families import Family, Sample, families
from rpccluster.metrics.layout import Block
from rpccluster.metrics.totals import Totals
from rpccluster.services.web.exposition import OPEN_METRICS, TEXT, negotiate, written

NAMES = ["sum", "with space", 'quo"te', "back\\slash", "new\nline", "ünïcode", "\udc80\udcff", "\x00\x07", "a" * 500]
HOSTILE = [
    Family("rpccluster_calls", "counter", 'Calls, "quoted" \\ and\nbroken.', [
        Sample("_total", [("method", name), ("outcome", "ok")], place) for place, name in enumerate(NAMES)
    ]),
    Family("rpccluster_connections", "gauge", "Connections.", [Sample("", [], 3)]),
    Family("rpccluster_odd", "gauge", "Odd.", [Sample("", [("at", str(v))], v) for v in (1e300, 5e-324, 0.1, -0.0)]),
    Family("rpccluster_wait_seconds", "histogram", "Waits.", [
        Sample("_bucket", [("le", "2e-05")], 1), Sample("_bucket", [("le", "+Inf")], 3),
        Sample("_sum", [], 1.5), Sample("_count", [], 3),
    ]),
]  # fmt: skip


def lines(text: str) -> list[str]:
    """The lines of samples, up to their values."""
    return [line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("content_type", [TEXT, OPEN_METRICS], ids=["text", "openmetrics"])
def test_what_is_written_is_read(content_type: str) -> None:
    """The names, labels and values that were meant, whatever a method is called."""
    text = written(HOSTILE, content_type).decode()
    read = list((read_open if content_type == OPEN_METRICS else read_text)(text))
    assert [(family.name, family.type) for family in read] == [(family.name, family.kind) for family in HOSTILE]
    meant = [
        name.encode("utf-8", "backslashreplace").decode() for name in NAMES
    ]  # bytes that are no UTF-8 are shown as an escape
    assert [sample.labels["method"] for sample in read[0].samples] == meant
    assert [sample.value for sample in read[0].samples] == list(range(len(NAMES)))
    assert [sample.value for sample in read[2].samples] == [1e300, 5e-324, 0.1, -0.0]
    assert read[0].documentation == HOSTILE[0].help


@pytest.mark.parametrize("content_type", [TEXT, OPEN_METRICS], ids=["text", "openmetrics"])
def test_no_line_stands_twice(content_type: str) -> None:
    """Prometheus takes the first of two and says nothing, so nobody else would notice."""
    blocks = {(Block.METHOD, name): [0] * 64 for name in NAMES}
    for text in (written(HOSTILE, content_type), written(families(Totals(blocks), ["calls"]), content_type)):
        assert max(Counter(lines(text.decode())).values()) == 1


@pytest.mark.parametrize("content_type", [TEXT, OPEN_METRICS], ids=["text", "openmetrics"])
def test_the_families_of_counters_are_read(content_type: str) -> None:
    """Of a cluster that has counted nothing yet, and of one with methods."""
    for totals in (Totals(), Totals({(Block.METHOD, name): [1] * 64 for name in NAMES}, 5, {"workers": 3})):
        text = written(families(totals, ["max_memory"], is_leader=True), content_type).decode()
        read = list((read_open if content_type == OPEN_METRICS else read_text)(text))
        assert "rpccluster_call_queue_seconds" in {family.name for family in read}


def test_nothing_is_written_of_no_families() -> None:
    """An empty text; OpenMetrics has its end."""
    assert written([], TEXT) == b""
    assert written([], OPEN_METRICS) == b"# EOF\n"


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (PROMETHEUS, OPEN_METRICS),
        ("application/openmetrics-text", OPEN_METRICS),
        ("APPLICATION/OpenMetrics-Text; version=1.0.0", OPEN_METRICS),
        ("application/openmetrics-text;q=0.5, text/plain;q=0.5", OPEN_METRICS),
        ("application/openmetrics-text;q=0.4, text/plain;q=0.5", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=nan", TEXT),
        ("application/openmetrics-text;q=x", TEXT),
        ("text/plain", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT),
        ("", TEXT),
        (",;,;q=,", TEXT),
        ("application/json", TEXT),
    ],
)
def test_the_format_is_what_is_asked_for(accept: str, expected: str) -> None:
    """OpenMetrics where it is wanted; the text format to everybody else, whatever they accept."""
    assert negotiate(accept) == expected
