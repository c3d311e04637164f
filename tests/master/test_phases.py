"""The phases of a master as two tables: each event in each phase has a row or is refused, and code asks permissions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rpccluster
from rpccluster.errors import IllegalTransition
from rpccluster.master.phases import Event, Permissions, Phase, next_phase

PACKAGE = Path(rpccluster.__file__).parent

#: What an event makes of each phase: its short name, ``.`` for no change, ``x`` for what cannot happen.
EXPECTED = """
            INHERITED  BOOTED   RELEASED  WANTED   DRAIN    TAKEN_OVER  ABANDONED  DEPART     STOP      QUIT
STARTING    JOINING    RUNNING  x         .        x        x           x          x          STOPPING  QUITTING
JOINING     x          STANDBY  x         .        x        x           x          x          QUITTING  QUITTING
STANDBY     x          x        RUNNING   .        x        x           x          x          QUITTING  QUITTING
RUNNING     x          x        x         .        DRAINED  LEAVING     x          DEPARTING  STOPPING  QUITTING
DRAINED     x          x        x         RUNNING  .        LEAVING     x          x          STOPPING  QUITTING
DEPARTING   x          x        x         .        .        x           x          x          STOPPING  QUITTING
LEAVING     x          x        x         .        x        x           STOPPING   x          x         QUITTING
STOPPING    x          x        x         .        .        x           x          x          .         QUITTING
QUITTING    x          x        .         .        .        x           .          x          .         .
"""

_HEAD, *_ROWS = (line.split() for line in EXPECTED.strip().splitlines())
CELLS = [(row[0], event, cell) for row in _ROWS for event, cell in zip(_HEAD, row[1:])]

#: The phases in which each permission holds.
ALLOWED_IN = {
    "is_starting": "STARTING JOINING STANDBY",
    "awaits_first_boots": "STARTING JOINING",
    "needs_all_children": "JOINING STANDBY",
    "wants_children": "STARTING JOINING STANDBY RUNNING DEPARTING",
    "starts_children": "RUNNING DEPARTING",
    "children_accept": "STARTING RUNNING DRAINED DEPARTING LEAVING STOPPING QUITTING",
    "connections_move": "STARTING JOINING STANDBY RUNNING DEPARTING LEAVING",
    "is_listed": "RUNNING",
    "may_change": "RUNNING DRAINED",
    "hands_over": "LEAVING",
    "kills_children": "QUITTING",
    "ends_when_empty": "LEAVING STOPPING QUITTING",
}


def phases_that(permission: str) -> set[str]:
    """Those that allow it."""
    return {phase.name for phase in Phase if getattr(phase.allows, permission)}


@pytest.mark.parametrize(("phase", "event", "expected"), CELLS)
def test_each_event_in_each_phase_has_a_row_or_is_refused(phase: str, event: str, expected: str) -> None:
    """An impossible step raises, and says what was found."""
    if expected == "x":
        with pytest.raises(IllegalTransition, match=f"found '{Event[event].value}' in phase '{Phase[phase].value}'"):
            next_phase(Phase[phase], Event[event])
    else:
        assert next_phase(Phase[phase], Event[event]) is Phase[phase if expected == "." else expected]


def test_no_phase_and_no_event_is_forgotten() -> None:
    """The picture above has them all."""
    assert {(phase, event) for phase, event, _ in CELLS} == {
        (phase.name, event.name) for phase in Phase for event in Event
    }


@pytest.mark.parametrize(("permission", "expected"), ALLOWED_IN.items())
def test_who_allows_what(permission: str, expected: str) -> None:
    """By permission, as the code asks."""
    assert phases_that(permission) == set(expected.split())


def test_the_permissions_fit_together() -> None:
    """Children are started only where they are wanted, and where the master may end none are; all are tested above."""
    assert phases_that("starts_children") <= phases_that("wants_children")
    assert phases_that("ends_when_empty").isdisjoint(phases_that("wants_children") | phases_that("may_change"))
    assert set(ALLOWED_IN) == set(Permissions._fields)


def test_nobody_else_names_a_phase() -> None:
    """Neither to ask nor to set one: a new phase is a row in each table."""
    naming = re.compile(r"\bPhase\.[A-Z]|\.phase\b[^=(]*=(?!=)")
    named = [
        line.strip()
        for path in sorted(PACKAGE.rglob("*.py"))
        if path
        not in (PACKAGE / "master" / "phases.py", PACKAGE / "assembly" / "little_master.py")  # which is a master
        for line in path.read_text().splitlines()
        if naming.search(line)
    ]
    assert named == [
        "before, self.phase = self.phase, next_phase(self.phase, event)",
        "group.phase = order.phase_of(group, self.all, phase, is_late=now >= self._stop_by)",
    ]
