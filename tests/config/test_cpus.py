"""How many workers there are by default."""

from __future__ import annotations

import math
import os

import pytest

from rpccluster.config.cpus import MOST_WORKERS, default_workers, workers_for
from rpccluster.system.cpus import allowed_cpus


@pytest.mark.parametrize(
    ("cpus", "quota", "workers"),
    [
        (4, math.inf, 4),
        (4, 2.0, 2),
        (4, 2.9, 2),
        (2, 8.0, 2),
        (4, 0.5, 1),
        (1, math.inf, 1),
        (1024, math.inf, MOST_WORKERS),
    ],
)
def test_workers_are_whole_and_at_least_one(cpus: int, quota: float, workers: int) -> None:
    """The quota is rounded down, and the default is always a legal value."""
    assert workers_for(cpus, quota) == workers


def test_this_machine_has_an_answer() -> None:
    """The real files give a legal default."""
    assert 1 <= default_workers() <= len(allowed_cpus())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs os.sched_setaffinity")
def test_the_affinity_of_this_process_counts() -> None:
    """A process that may run on one CPU gets one worker."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allowed_cpus() == {min(before)}
        assert default_workers() == 1
    finally:
        os.sched_setaffinity(0, before)
