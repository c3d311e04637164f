"""Submitters, and the events that each has not confirmed; the loop is made up."""

from __future__ import annotations

import os
from typing import Any

import pytest

from rpccluster.services.dispatcher.submitters import ACCEPTED, PROGRESS, Submitter, Submitters

from .made_up import Loop

NAME = 7


@pytest.fixture
def submitter() -> Submitter:
    return Submitter(f"{os.getpid()}-1")


def answer_of(later: Any) -> Any:
    return None if later._outcome is None else later._outcome[1]


def test_an_event_is_told_until_it_is_confirmed(submitter: Submitter) -> None:
    """By its number; the ends among those that are confirmed are returned."""
    submitter.tell(1, ACCEPTED)
    submitter.tell(1, "ok", b"result")
    submitter.tell(2, "raised", b"why")
    assert submitter.events() == [[1, 1, ACCEPTED], [2, 1, "ok", b"result"], [3, 2, "raised", b"why"]]
    assert submitter.events()[0][0] == 1
    assert submitter.confirm(2) == [1]
    assert submitter.events() == [[3, 2, "raised", b"why"]]
    assert (submitter.confirm(2), submitter.has_events) == ([], True)
    assert (submitter.confirm(3), submitter.has_events) == ([2], False)


def test_of_progress_the_last_counts(submitter: Submitter) -> None:
    """Until it is told: what was told stays as it was."""
    submitter.tell(1, PROGRESS, 1, 10, None)
    submitter.tell(1, PROGRESS, 2, 10, None)
    assert submitter.events() == [[1, 1, PROGRESS, 2, 10, None]]
    submitter.tell(1, PROGRESS, 3, 10, None)
    assert submitter.events() == [[1, 1, PROGRESS, 2, 10, None], [2, 1, PROGRESS, 3, 10, None]]
    assert submitter.confirm(2) == []


def test_an_answer_is_bounded(submitter: Submitter) -> None:
    """By number and by bytes, and it has one event at least."""
    for task_id in range(1500):
        submitter.tell(task_id, "ok", b"")
    assert len(submitter.events()) == 1000
    submitter.confirm(1500)
    for task_id in range(3):
        submitter.tell(task_id, "ok", bytes(15 << 20))
    assert len(submitter.events()) == 1


def test_events_of_one_turn_are_one_answer() -> None:
    """To the call that waits for them; an earlier one is answered without any."""
    loop = Loop()
    gone: list[Submitter] = []
    submitters = Submitters(loop, NAME, gone.append)
    submitter = submitters.of(f"{os.getpid()}-1")
    assert submitters.of(submitter.token) is submitter
    early, later = submitter.take(), submitter.take()
    assert answer_of(early) == [0, []]
    submitters.tell(submitter, 1, "ok", b"")
    submitters.tell(submitter, 2, "ok", b"")
    assert answer_of(later) is None
    loop.turn()
    assert answer_of(later) == [NAME, [[1, 1, "ok", b""], [2, 2, "ok", b""]]]
    submitters.leave(submitter)
    submitters.leave(submitter)
    assert (gone, submitters.all()) == ([submitter], [])


def test_a_token_begins_with_a_pid() -> None:
    """Whatever else comes is the caller's fault."""
    with pytest.raises(ValueError, match="invalid literal"):
        Submitter("somebody")
