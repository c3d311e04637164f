"""Many afternoons of a master, made up by seeds; ``bin/simulate`` lives through as many as one likes."""

from __future__ import annotations

from collections import Counter

import pytest

from .afternoon import live_through
from .coverage import never_met

SEEDS = range(1, 301)


@pytest.mark.timeout(300)
def test_nothing_goes_wrong_in_any_of_them() -> None:
    """And nearly every row of the tables of states, and nearly every message, is met; all are by more seeds."""
    counts: Counter[tuple[str, str]] = Counter()
    for seed in SEEDS:
        outcome = live_through(seed, counts)
        told = "\n".join(outcome.story[-60:])
        assert not outcome.fault, f"seed {seed}: {outcome.fault}\n{told}"
    assert len(never_met(counts)) <= 30, never_met(counts)


@pytest.mark.parametrize("seed", [3, 30, 91])
def test_the_same_seed_makes_the_same_story(seed: int) -> None:
    """To the byte, however the process that tells it has been used before."""
    assert live_through(seed).story == live_through(seed).story
