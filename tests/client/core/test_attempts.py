"""What is sent again, where, and what a call ends with."""

from __future__ import annotations

from collections.abc import Container

import pytest

from rpccluster.client.core.attempts import DIRECT, Attempts
from rpccluster.errors import CallTimeout, ConnectFailed, Lost, NotSent

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
    attempts = Attempts(DIRECT, idempotent)
    assert attempts.may_go_on(error) is may_go_on
    assert attempts.error is error


def test_ends() -> None:
    """It does not go on for ever."""
    attempts = Attempts(DIRECT, True)
    assert [attempts.may_go_on(LOST) for _ in range(3)] == [True, True, False]


def test_once_lost_it_may_have_run() -> None:
    """A call one of whose attempts was lost may have run, however the others ended: the error says so."""
    attempts = Attempts(DIRECT, True)
    attempts.may_go_on(NOT_SENT)
    attempts.may_go_on(LOST)
    attempts.may_go_on(NO_SERVER)
    assert attempts.error is LOST


class Recorder:
    """A route over two addresses with two connections each, taken in turn; it keeps what it is told."""

    addresses = 2
    connections = 4
    lead = None

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def has_another(self, tried: Container[int]) -> bool:
        return 0 not in tried or 1 not in tried

    def choose(self, tried: Container[int]) -> tuple[int, int]:
        return (1 if 0 in tried else 0), 0

    def reached(self, address: int) -> None:
        self.told.append(("reached", address))

    def failed(self, address: int) -> None:
        self.told.append(("failed", address))

    def ended(self, address: int) -> None:
        self.told.append(("ended", address))

    def timed_out(self, address: int) -> None:
        self.told.append(("timed out", address))


def test_another_address_is_tried_before_the_call_fails() -> None:
    """What cannot be reached is not chosen again for this call; when all have failed the error tells of all."""
    route = Recorder()
    attempts = Attempts(route, False)
    assert attempts.choose() == (0, 0)
    assert attempts.failed(ConnectFailed("a: refused"), False) is None
    assert attempts.choose() == (1, 0)
    given_up = attempts.failed(ConnectFailed("b: refused"), False)
    assert isinstance(given_up, ConnectFailed) and str(given_up) == "a: refused; b: refused"
    assert route.told == [("failed", 0), ("failed", 1)]


def test_no_other_address_is_tried_after_the_deadline() -> None:
    """The call is over then, whatever the others would say."""
    attempts = Attempts(Recorder(), False)
    attempts.choose()
    error = ConnectFailed("a: silent")
    assert attempts.failed(error, True) is error


def test_the_route_is_told_how_a_call_went() -> None:
    """A connection that could be had, one that ended under the call, and a reply that did not come."""
    route = Recorder()
    attempts = Attempts(route, False)
    attempts.choose()
    attempts.connected()
    assert attempts.failed(NOT_SENT, False) is None
    attempts.choose()
    attempts.connected()
    late = CallTimeout("late")
    assert attempts.failed(late, True) is late
    assert route.told == [("reached", 0), ("ended", 0), ("reached", 0), ("timed out", 0)]


def test_a_refusal_of_the_client_says_nothing_of_the_address() -> None:
    """A client that is closed sends nothing; its address may be well."""
    route = Recorder()
    attempts = Attempts(route, False)
    attempts.choose()
    attempts.failed(NotSent("the client is closed"), False)
    assert route.told == []


def test_an_older_loss_is_told_rather_than_a_later_failure() -> None:
    """A call that may have run must not end as one that certainly did not."""
    attempts = Attempts(DIRECT, True)
    attempts.choose()
    attempts.connected()
    assert attempts.failed(LOST, False) is None
    attempts.choose()
    assert attempts.failed(NO_SERVER, False) is LOST
