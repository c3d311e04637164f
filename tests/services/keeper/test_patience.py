"""Calls that have a deadline while the store of the items may be silent."""

from __future__ import annotations

from pathlib import Path

from rpccluster.services.keeper import patience

from .bench import Bench, answer


def test_calls_that_are_answered_are_forgotten(tmp_path: Path) -> None:
    """Long before their deadline: they hold the values that they have put."""
    bench = Bench(tmp_path)
    for number in range(5 * patience._STALE):
        assert answer(bench.put(number, timeout=60.0).later) is not None
    kept = bench.desk._patience
    assert kept is not None
    assert len(kept._due) <= patience._STALE + 1


def test_a_repeat_has_its_own_patience(tmp_path: Path) -> None:
    """Also if the call whose place it takes had no deadline, and the store is silent then."""
    bench = Bench(tmp_path)
    first = bench.get(1, seq=5).later
    again = bench.get(1, seq=5, timeout=2.0)
    assert first.is_over
    kept = bench.desk._patience
    assert kept is not None
    assert any(due.call.later is again.later for due in kept._due)
