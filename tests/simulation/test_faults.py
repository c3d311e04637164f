"""Faults that were once real, put back one at a time: the simulation finds each, and tells it in a short story."""

from __future__ import annotations

import pytest

from .faults import FAULTS, PutBack, find

LONGEST_STORY = 40  # lines
OTHER_SEEDS = "1:2001"  # looked through when a change of the code has moved the fault to another seed


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_that_is_put_back_is_found(fault: PutBack) -> None:
    """At the seed that stands beside it, or soon at another; its story is short, and ends with the broken rule."""
    found = find(fault, f"{fault.seed}:{fault.seed + 1}") or find(fault, OTHER_SEEDS)
    assert found is not None
    assert len(found.story) < LONGEST_STORY, "\n".join(found.story)
    assert "broken " in found.story[-1]
