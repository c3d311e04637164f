"""How a terminal's lines are divided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.cli.top.fitting import LEAST_LINES, first_shown, shares


@pytest.mark.parametrize(
    ("wanted", "room", "given"),
    [
        ([4, 3], 21, [4, 3]),
        ([100, 3], 21, [18, 3]),
        ([100, 100, 2], 22, [10, 10, 2]),
        ([100, 100], 7, [4, 3]),
        ([9, 9, 9], 5, [3, 2, 0]),
        ([9], 0, [0]),
        ([], 9, []),
    ],
    ids=str,
)
def test_lines_are_divided(wanted: list[int], room: int, given: list[int]) -> None:
    """What one does not need, others have; where there is too little, the first ones have something."""
    assert shares(wanted, room) == given


def test_the_section_in_front_is_there() -> None:
    """Also in a terminal that is too small for all."""
    assert shares([9, 9, 9], 4, 2) == [2, 0, 2]
    assert shares([9, 9, 9], 2, 1) == [0, 2, 0]


@given(st.lists(st.integers(2, 50), max_size=8), st.integers(0, 100), st.data())
def test_nothing_is_given_twice(wanted: list[int], room: int, data: st.DataObject) -> None:
    """No more than there is, no more than a section wants, never a title alone, and nothing is left that is wanted."""
    found = shares(wanted, room, data.draw(st.integers(0, max(0, len(wanted) - 1))) if wanted else 0)
    assert sum(found) <= room
    assert all(number == 0 or LEAST_LINES <= number <= most for number, most in zip(found, wanted))
    assert sum(found) == min(room, sum(wanted)) or any(number == 0 for number in found)


@pytest.mark.parametrize(
    ("selected", "shown", "number", "first"),
    [(0, 5, 10, 0), (4, 5, 10, 0), (5, 5, 10, 1), (9, 5, 10, 5), (2, 5, 3, 0), (3, 0, 9, 0)],
)
def test_the_selected_row_is_shown(selected: int, shown: int, number: int, first: int) -> None:
    """It scrolls no further than it must."""
    assert first_shown(selected, shown, number) == first
