"""The options of calls: their common form is looked at in one step, and all others are left to the checks of each."""

from __future__ import annotations

from typing import Any

import pytest

from rpccluster.services.keeper.arguments import Options, numbered_of

SESSION = b"s" * 16


def test_a_session_and_a_number_are_the_common_form() -> None:
    """And nothing at all."""
    assert numbered_of(None) == (None, 0)
    for session, seq in [(SESSION, 1), (b"s" * 64, 2**63 - 1)]:
        given = {"session": session, "seq": seq}
        assert numbered_of(given) == (session, seq)
        options = Options(given)
        assert (options.session(), options.number("seq")) == (session, seq)
        options.done()


@pytest.mark.parametrize(
    "given",
    [
        {},
        [],
        {"session": SESSION},
        {"session": "s" * 16, "seq": 1},
        {"session": b"s" * 15, "seq": 1},
        {"session": b"s" * 65, "seq": 1},
        {"session": SESSION, "seq": 0},
        {"session": SESSION, "seq": True},
        {"session": SESSION, "seq": 1.0},
        {"session": SESSION, "seq": 2**63},
        {"session": SESSION, "priority": 1},
        {"session": SESSION, "seq": 1, "delay": 0},
    ],
    ids=repr,
)
def test_what_is_not_of_that_form_is_left_to_the_checks(given: Any) -> None:
    assert numbered_of(given) is None
