"""Whether a running task is past a limit, and when to look again: by made-up clocks and memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.master.kinds.tasks.limits import LOOK_SECONDS, OUT_OF_MEMORY, TIMED_OUT, Seen, judge, wants_memory

MB = 1 << 20
NEVER = float("inf")

times = st.floats(1.0, 1e6)
sizes = st.integers(0, 1 << 40)


@pytest.mark.parametrize(
    ("seen", "most", "cause", "again_at"),
    [
        (Seen(0), 100, "", NEVER),
        (Seen(0, 9.0, 200), 100, "", NEVER),  # it has just ended
        (Seen(1), 0, "", NEVER),
        (Seen(1, 9.0), 0, TIMED_OUT, NEVER),
        (Seen(1, 10.0), 0, TIMED_OUT, NEVER),
        (Seen(1, 11.0), 0, "", 11.0),
        (Seen(1, 11.0, 5), 100, "", 10.0 + LOOK_SECONDS),
        (Seen(1, 10.01, 5), 100, "", 10.01),
        (Seen(1, 0.0, 100), 100, "", 10.0 + LOOK_SECONDS),
        (Seen(1, 0.0, 101), 100, OUT_OF_MEMORY, NEVER),
        (Seen(1, 0.0, 60, 60), 100, "", 10.0 + LOOK_SECONDS),  # a child that is being started
        (Seen(1, 0.0, 60, 60, True), 100, OUT_OF_MEMORY, NEVER),
        (Seen(1, 0.0, None, 0, True), 100, "", 10.0 + LOOK_SECONDS),
    ],
)
def test_what_follows_from_what_is_seen(seen: Seen, most: int, cause: str, again_at: float) -> None:
    """At the time 10, which is that of the last look at the memory, too."""
    verdict = judge(seen, most, 10.0, 10.0)
    assert (verdict.cause, verdict.again_at) == (cause, again_at)


def test_two_looks_in_a_row_are_what_counts_for_children() -> None:
    """One that finds less between them makes good."""
    over, fine = Seen(1, 0.0, 60, 60), Seen(1, 0.0, 60, 30)
    assert judge(over, 100, 0.0, 0.0).is_over
    assert not judge(fine._replace(was_over=True), 100, 0.0, 0.0).is_over
    assert judge(Seen(1, was_over=True), 100, 0.0, 0.0).is_over  # no look at the memory says nothing


@given(st.integers(1, 1 << 63), times, times, sizes, sizes, sizes, st.booleans())
def test_no_task_outlives_its_deadline_and_none_is_ended_before(
    number: int, deadline: float, now: float, most: int, own: int, children: int, was_over: bool
) -> None:
    """Whatever its memory is; and the next look is never behind the deadline."""
    verdict = judge(Seen(number, deadline, own, children, was_over), most, now, now)
    assert (verdict.cause == TIMED_OUT) == (now >= deadline)
    if not verdict.cause:
        assert now < verdict.again_at <= deadline


@given(st.integers(1, 1 << 63), sizes.filter(bool), sizes, sizes)
def test_memory_within_the_limit_ends_no_task(number: int, most: int, own: int, children: int) -> None:
    """At two looks in a row: what is over it does."""
    first = judge(Seen(number, 0.0, own, children), most, 0.0, 0.0)
    second = judge(Seen(number, 0.0, own, children, first.is_over), most, 0.02, 0.02)
    assert bool(first.cause or second.cause) == (own + children > most)
    assert bool(first.cause) == (own > most)


def test_memory_is_read_while_a_task_runs_that_is_bounded() -> None:
    """Each 20 milliseconds."""
    assert wants_memory(1, 10.0, MB, 10.0 + LOOK_SECONDS)
    assert not wants_memory(1, 10.0, MB, 10.0 + LOOK_SECONDS / 2)
    assert not wants_memory(0, 0.0, MB, 10.0)
    assert not wants_memory(1, 0.0, 0, 10.0)
