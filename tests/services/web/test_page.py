"""The page's parts: texts that are no HTML, samples that outlive a process, plots with gaps, and actions' bodies."""

from __future__ import annotations

from typing import Any

import pytest

from rpccluster.ipc.fdpass import memory_file
from rpccluster.services.web.actions import ACTIONS, Misread, question
from rpccluster.services.web.hour import SAMPLE_SECONDS, SLOTS, Hour, Sample, rates
from rpccluster.services.web.page.document import Parts, document
from rpccluster.services.web.page.plots import plots
from rpccluster.services.web.page.view import Rates, live, summary

HOSTILE = "<script>alert('&\"')</script>"


def process(**own: Any) -> dict[str, Any]:
    """A row of `status`."""
    return {"slot": 0, "pid": 7, "state": "ready", "uptime_seconds": 3.0, "rss_bytes": 1, "restarts": 0, **own}


def group(name: str, state: str = "ready", **own: Any) -> dict[str, Any]:
    """A group of `status` with one process."""
    given = {"name": name, "kind": "plugin", "state": state, "wanted": 1, "reason": "", **own}
    return {"processes": [process(state=state, reason=given["reason"])], **given}


def status(*groups: dict[str, Any]) -> dict[str, Any]:
    """A `status` of these groups."""
    master = {
        "version": HOSTILE,
        "uptime_seconds": 90_000,
        "generation": 1,
        "settings": {"version": 1},
        "engine": "",
        "pid": 1,
        "listeners": [HOSTILE],
        "leadership": None,
        "state": "running",
    }
    return {"master": master, "workers": [], "groups": list(groups)}


def test_no_text_of_the_cluster_is_html() -> None:
    """Names, reasons and addresses are shown as they are written."""
    shown = status(group(HOSTILE, "waiting", reason=HOSTILE, queues=[{"name": HOSTILE, "ready": 1}]))
    pools = [{"name": HOSTILE, "processes": 1, "running": 0, "waiting": 0}]
    parts = Parts(summary(shown, 0.0), False, live(shown, Rates(), pools), "")
    page = document(HOSTILE, parts, has_actions=True).decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_the_summary_tells_what_is_not_ready() -> None:
    """What is stopped, has finished, or waits for its time is not missed; an old status is told first."""
    groups = [group("a"), group("b", "waiting"), group("c", "stopped"), group("d", "waiting", reason="schedule")]
    assert summary(status(*groups), 0.0) == "1 of 2 processes are ready; the cluster is running. Not ready: b."
    assert "does not answer" in summary(status(*groups), 60.0)


def test_samples_outlive_the_process() -> None:
    """The next one finds them by their time; what is older than an hour is not found."""
    file, now = memory_file(name="hour"), 1_000_000.0
    Hour(file).note(now, Sample(1, 0, 2, 3))
    Hour(file).note(now + SAMPLE_SECONDS, Sample(21, 0, 2, 3))
    after = Hour(file).samples(now + SAMPLE_SECONDS)
    assert after[-2:] == [Sample(1, 0, 2, 3), Sample(21, 0, 2, 3)]
    assert after[:-2] == [None] * (SLOTS - 2)
    assert Hour(file).samples(now + SAMPLE_SECONDS * (SLOTS + 2)) == [None] * SLOTS


def test_a_rate_needs_two_neighbours() -> None:
    """A gap and a counter that begins anew have none."""
    assert rates([None, 10.0, 30.0, None, 50.0, 5.0, 5.0]) == [None, None, 2.0, None, None, None, 0.0]


@pytest.mark.parametrize("samples", [[], [None] * SLOTS, [Sample(0, 0, 0, 0)], [Sample(5, 1, 2, 3), None] * 180])
def test_plots_have_words_and_gaps(samples: list[Sample | None]) -> None:
    """Whatever there is, four figures that say the same in words."""
    drawn = plots(samples)
    assert drawn.count("in the last hour: now ") == 4
    assert "nan" not in drawn and "inf" not in drawn


@pytest.mark.parametrize("name", sorted(ACTIONS))
@pytest.mark.parametrize("body", [b"[]", b"1", b"nul", b"\xff", b'{"x": 1}', b"[" * 60_000, b'{"name": ""}'])
def test_a_body_that_says_something_else_is_misread(name: str, body: bytes) -> None:
    """With what was found, and nothing is asked."""
    with pytest.raises(Misread, match="found"):
        question(name, body)
