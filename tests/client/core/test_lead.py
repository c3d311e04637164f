"""Where a call of a client that follows the lead goes on, by a made-up clock."""

from __future__ import annotations

import pytest

from rpccluster.client.core.attempts import Attempts, Direct
from rpccluster.client.core.lead import Lead
from rpccluster.errors import AddressError, CallTimeout, ConnectFailed, Lost, NotLeader, NotSent

from .conftest import Clock

A, B = NotLeader(message="tcp://a:1"), NotLeader(message="tcp://b:1")
NOBODY = NotLeader()
REFUSED = ConnectFailed("refused")


class Made:
    """A client that does nothing."""

    def __init__(self, address: str) -> None:
        if address == "rubbish":
            raise AddressError("rubbish")
        self.address = address
        self.pending = 0
        self.is_connected = False


@pytest.fixture
def lead(clock: Clock) -> Lead[Made]:
    return Lead(Made, clock)


def attempts(lead: Lead[Made], method: str = "write", idempotent: bool = False) -> Attempts:
    """A call that has found a connection where any call begins."""
    made = Attempts(Direct(lead), idempotent, method)
    made.choose()
    made.connected()
    return made


def test_without_a_lead_the_answer_is_the_end() -> None:
    """A client that does not follow raises what it is told."""
    made = Attempts(Direct(), False, "write")
    assert made.failed(A, False) is A and not made.is_led and not made.follows


def test_the_leader_is_followed_at_once_and_the_next_call_begins_there(lead: Lead[Made]) -> None:
    """Without a pause; calls of other methods begin where they did."""
    call = attempts(lead)
    assert call.failed(A, False) is None
    assert (call.is_led, call.again_at, call.choose_leader()) == (True, 0.0, "tcp://a:1")
    assert Attempts(Direct(lead), False, "write").leader == "tcp://a:1"
    assert Attempts(Direct(lead), False, "read").leader is None
    assert Attempts(Direct(lead), False).leader is None


def test_nobody_leads(lead: Lead[Made], clock: Clock) -> None:
    """Calls wait, all until the same moment, longer each time up to a bound, and ask where they began."""
    calls = [attempts(lead) for _ in range(3)]
    assert [call.failed(NOBODY, False) for call in calls] == [None] * 3
    assert {call.again_at for call in calls} == {100.05}
    assert calls[0].choose_leader() is None and not calls[0].is_led
    pauses = []
    for _ in range(6):
        clock.now = calls[0].again_at or 100.05
        calls[0].failed(NOBODY, False)
        pauses.append(round(calls[0].again_at - clock.now, 3))
    assert pauses == [0.1, 0.2, 0.4, 0.4, 0.4, 0.4]
    assert calls[0].failed(NOBODY, True) is NOBODY, "its time is over"


def test_two_that_name_each_other_are_not_asked_without_a_pause(lead: Lead[Made]) -> None:
    """Each believes that the other leads, for a moment."""
    call = attempts(lead)
    assert call.failed(A, False) is None and call.again_at == 0.0
    call.choose_leader()
    assert call.failed(B, False) is None and call.again_at > 100.0 and call.leader == "tcp://b:1"


def test_a_leader_that_cannot_be_reached(lead: Lead[Made], clock: Clock) -> None:
    """The call asks again where it began; for a while nobody is believed that names the same one."""
    call = attempts(lead)
    call.failed(A, False)
    call.choose_leader()
    assert call.failed(REFUSED, False) is None
    assert call.leader is None and call.again_at > clock.now
    assert call.failed(A, False) is None and call.leader is None, "still named, and not believed"
    clock.now += 2
    assert call.failed(A, False) is None and call.leader == "tcp://a:1"
    call.choose_leader()
    assert call.failed(REFUSED, True) is A, "at the end the call has been told so"


@pytest.mark.parametrize("error, given_up", [(Lost("lost"), True), (NotSent("not sent"), False)])
def test_what_ends_at_the_leader(lead: Lead[Made], error: Lost | NotSent, given_up: bool) -> None:
    """A call that may have run is not repeated; one that did not run is, at the leader."""
    call = attempts(lead)
    call.failed(A, False)
    call.choose_leader()
    call.connected()
    assert (call.failed(error, False) is error) is given_up
    assert call.leader == "tcp://a:1"


def test_a_leader_that_does_not_answer_is_forgotten(lead: Lead[Made]) -> None:
    """The call has timed out; the next one asks where any call begins."""
    call = attempts(lead)
    call.failed(A, False)
    call.choose_leader()
    call.connected()
    assert isinstance(call.failed(CallTimeout("late"), False), CallTimeout)
    assert Attempts(Direct(lead), False, "write").leader is None


def test_an_unreachable_server_is_asked_again(lead: Lead[Made]) -> None:
    """Where only the leader listens nobody may, for a moment: a client that follows waits within its timeout."""
    call = Attempts(Direct(lead), False, "write")
    call.choose()
    assert call.failed(REFUSED, False) is None and call.again_at > 100.0
    assert call.failed(REFUSED, True) is REFUSED


def test_rubbish_is_no_address(lead: Lead[Made]) -> None:
    """The caller gets the answer as it is."""
    error = NotLeader(message="rubbish")
    assert attempts(lead).failed(error, False) is error


def test_what_is_remembered_is_bounded(lead: Lead[Made]) -> None:
    """However many methods are refused, and however many leaders are named."""
    for number in range(3000):
        lead.needs(f"method{number}")
        lead.named(f"tcp://host:{number}")
    assert len(lead._methods) <= 1000
    assert len(list(lead)) == 1, "those that are not connected are dropped"
