"""The log tells when calls have had all greenlets of a worker for long, by a made-up clock."""

from __future__ import annotations

from collections import Counter

import pytest

from rpccluster.config.sections.cluster import Options
from rpccluster.worker.live_options import LiveOptions
from rpccluster.worker.process.taken_greenlets import LONG_SECONDS, TakenGreenlets

SECOND = 1_000_000_000
BEGAN = 100 * SECOND


@pytest.fixture
def taken() -> TakenGreenlets:
    options = LiveOptions.of(Options(max_greenlets=7))
    return TakenGreenlets(options, lambda: Counter({"hang": 4, "wait": 2, "a": 1, "b": 1}))


def test_it_is_told_once_and_when_it_is_over(taken: TakenGreenlets, caplog: pytest.LogCaptureFixture) -> None:
    """After ten seconds, with the methods that have most of them."""
    for seconds in range(25):
        taken.look(BEGAN, BEGAN + seconds * SECOND)
    taken.look(0, BEGAN + 25 * SECOND)
    taken.look(0, BEGAN + 26 * SECOND)
    assert LONG_SECONDS == 10
    assert caplog.messages == [
        "All 7 greenlets are taken, no call has ended for 10 seconds: no connection is accepted. In "
        "hang (4), wait (2), a (1)",
        "There are greenlets again, after 25 seconds",
    ]


def test_calls_that_end_are_no_news(taken: TakenGreenlets, caplog: pytest.LogCaptureFixture) -> None:
    """However long all are taken, as long as some end now and then."""
    for seconds in range(60):
        taken.look(BEGAN + seconds // 9 * 9 * SECOND, BEGAN + seconds * SECOND)
    assert caplog.messages == []
