"""The rule of what is sent again."""

from __future__ import annotations

import pytest

from rpccluster.client.core.attempts import Attempts
from rpccluster.errors import ConnectFailed, Lost, NotSent

LOST, NOT_SENT, NO_SERVER = Lost("lost"), NotSent("not sent"), ConnectFailed("refused")


@pytest.mark.parametrize(
    "idempotent, error, may_go_on",
    [
        (False, NOT_SENT, True),
        (False, LOST, False),
        (False, NO_SERVER, False),
        (True, NOT_SENT, True),
        (True, LOST, True),
        (True, NO_SERVER, False),
    ],
)
def test_rule(idempotent: bool, error: Lost | NotSent | ConnectFailed, may_go_on: bool) -> None:
    """What did not run is sent again; what may have run only if the caller allows it; without a server nothing is."""
    attempts = Attempts(idempotent)
    assert attempts.may_go_on(error) is may_go_on
    assert attempts.error is error


def test_ends() -> None:
    """It does not go on for ever."""
    attempts = Attempts(True)
    assert [attempts.may_go_on(LOST) for _ in range(3)] == [True, True, False]


def test_once_lost_it_may_have_run() -> None:
    """A call one of whose attempts was lost may have run, however the others ended: the error says so."""
    attempts = Attempts(True)
    attempts.may_go_on(NOT_SENT)
    attempts.may_go_on(LOST)
    attempts.may_go_on(NO_SERVER)
    assert attempts.error is LOST
