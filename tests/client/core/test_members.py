"""Members of a pool that come and go, by a made-up clock."""

from __future__ import annotations

import threading

import pytest

from rpccluster.client.core.members import Members
from rpccluster.errors import AddressError, ConnectFailed

from .conftest import Clock


class Made:
    """A client that does nothing."""

    def __init__(self, address: str) -> None:
        if not address:
            raise AddressError("empty")
        self.address = address
        self.pending = 0
        self.is_connected = True
        self.is_aside = False

    def set_aside(self) -> None:
        self.is_aside = True


@pytest.fixture
def members(clock: Clock) -> Members[Made]:
    made = Members(None, 2, Made, threading.RLock(), clock)
    made.replace(["a", "b"])
    return made


def chosen(members: Members[Made], count: int = 12) -> set[str]:
    """The addresses that calls choose."""
    return {members.at(members.choose()).address for _ in range(count)}


def test_none_yet(clock: Clock) -> None:
    """Without members there is nothing to choose."""
    members = Members(None, 2, Made, threading.RLock(), clock)
    assert (members.addresses, members.connections, members.indexes, str(members)) == (0, 0, [], "")
    with pytest.raises(ConnectFailed):
        members.choose()
    with pytest.raises(ConnectFailed):
        members.look()


def test_a_new_member_gets_its_share_at_once(members: Members[Made]) -> None:
    """It is the least loaded, and has a connection to make."""
    for client in members:
        client.pending = 3
    members.replace(["a", "b", "c"])
    assert members.at(members.choose()).address == "c"
    for client in members:
        client.pending = 0
    assert chosen(members) == {"a", "b", "c"}


def test_one_that_goes_takes_no_more_calls(members: Members[Made], clock: Clock) -> None:
    """Its connections are set aside, and closed when no call is pending there; not before."""
    going = members.clients[0]
    going[0].pending = 1
    members.replace(["b"])
    assert chosen(members) == {"b"} and members.addresses == 1
    assert all(client.is_aside for client in going)
    assert members.pending == 1, "the call is still counted"
    assert members.drained() == [], "one that has found it may just begin"
    clock.now += 2
    assert members.drained() == [going[1]]
    going[0].pending = 0
    assert members.drained() == [going[0]] and members.drained() == []
    assert list(members.stats()["addresses"]) == ["b"]


def test_who_stays_is_left_alone(members: Members[Made]) -> None:
    """Its connections are kept, whatever comes and goes around it."""
    kept = members.clients[1]
    members.replace(["c", "b"])
    assert members.clients[1] is kept and not kept[0].is_aside
    members.replace(["b", "b", "a"])
    assert members.clients[1] is kept
    assert sorted(members.stats()["addresses"]) == ["a", "b"]


def test_another_ones_index_is_used_again(members: Members[Made], clock: Clock) -> None:
    """Lists do not grow with all that were ever members, and what was known of the former is forgotten."""
    members.failed(0)
    members.timed_out(0)
    for number in range(100):
        members.replace(["b", f"c{number}"])
    assert len(members.clients) == 2
    assert not members.suspects and members.stats()["failures"] == 0
    assert chosen(members) == {"b", "c99"}


def test_rubbish_changes_nothing(members: Members[Made]) -> None:
    """An address that none can be made of."""
    with pytest.raises(AddressError):
        members.replace(["b", ""])
    assert chosen(members) == {"a", "b"}


def test_what_was_tried_may_be_all(members: Members[Made]) -> None:
    """A call that has tried the others, which have gone, ends."""
    assert not members.has_another({0, 1})
    with pytest.raises(ConnectFailed):
        members.choose({0, 1})
    members.replace(["b"])
    assert members.has_another({0}) and not members.has_another({1})
    with pytest.raises(ConnectFailed):
        members.choose({1})
