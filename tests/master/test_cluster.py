"""What the master knows of its cluster: its phase changes by events alone."""

from __future__ import annotations

import pytest

from rpccluster.errors import IllegalTransition
from rpccluster.master.phases import Event, Phase

from .made_up import cluster


def test_an_event_that_cannot_happen_leaves_the_phase_as_it_was() -> None:
    """What can changes it, and says whether it has."""
    made = cluster()
    with pytest.raises(IllegalTransition):
        made.note(Event.BOOTED)
    assert made.phase is Phase.RUNNING
    assert not made.note(Event.WANTED)
    assert made.note(Event.DRAIN)
    assert made.phase is Phase.DRAINED
