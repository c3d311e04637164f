"""Rates and times of the last seconds, of what was told at moments."""

from __future__ import annotations

import pytest

from rpccluster.cli.top.snapshots import History, quantile

from .made_up import BOUNDS, counts, snapshot, worker


def test_rates_are_those_of_the_window() -> None:
    """Not those since the start; without two moments there is none."""
    history = History()
    history.add(snapshot(0.0, worker(0, 1000), cpu={100: 5.0}))
    assert (history.call_rate(100), history.cpu_share(100), history.seconds) == (None, None, 0.0)
    for second in range(1, 21):
        history.add(snapshot(float(second), worker(0, 1000 + 10 * second), cpu={100: 5.0 + second / 4}))
    assert history.call_rate(100) == 10.0
    assert history.cpu_share(100) == 0.25
    assert history.seconds == 5.0


def test_a_worker_that_has_just_come_has_a_rate_of_its_own() -> None:
    """Since it was seen first; a pid that nobody tells of has none."""
    history = History()
    history.add(snapshot(0.0, worker(0)))
    history.add(snapshot(1.0, worker(0), worker(1, 5), cpu={101: 1.0}))
    history.add(snapshot(2.0, worker(0), worker(1, 25), cpu={101: 1.5}))
    assert (history.call_rate(101), history.cpu_share(101)) == (20.0, 0.5)
    assert (history.call_rate(7), history.cpu_share(7)) == (None, None)


def test_methods_by_their_counters() -> None:
    """Calls, failures, and times of those that ended in between; a new method counts from nothing."""
    history = History()
    history.add(snapshot(0.0, methods={"old": counts(100, 1, 100, 0, 0, 0)}, bounds=BOUNDS))
    new = {"old": counts(110, 2, 100, 10, 0, 0), "new": counts(4, 0, 0, 0, 4, 0), "idle": counts(0, 0, 0, 0, 0, 0)}
    history.add(snapshot(2.0, methods=new, bounds=BOUNDS))
    old, fresh = history.methods()
    assert old == ("old", 5.0, 0.5, pytest.approx(0.0015), pytest.approx(0.00199), 110)
    assert (fresh.rate, fresh.p50, fresh.calls) == (2.0, pytest.approx(0.003), 4)


def test_nobody_counts() -> None:
    """Then there are no methods."""
    history = History()
    history.add(snapshot(0.0, missing="no section [metrics]"))
    assert history.methods() == []


@pytest.mark.parametrize(
    ("share", "found", "expected"),
    [
        (0.5, (0, 0, 0, 0), None),
        (0.5, (10, 0, 0, 0), 0.0005),
        (0.99, (99, 1, 0, 0), 0.001),
        (0.99, (0, 100, 0, 0), 0.00199),
        (0.5, (0, 0, 0, 7), 0.004),
        (1.0, (1, 0, 1, 0), 0.004),
    ],
    ids=str,
)
def test_a_quantile_lies_in_its_bucket(share: float, found: tuple[int, ...], expected: float | None) -> None:
    """Between the bounds, as if the bucket were evenly filled; in the last one at its lower end."""
    assert quantile(share, found, BOUNDS) == (None if expected is None else pytest.approx(expected))
