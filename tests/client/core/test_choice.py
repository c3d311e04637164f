"""Which address and which connection a call of a pool takes, by a made-up clock."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rpccluster.client.core.choice import Choice


def test_least_pending_address() -> None:
    """The address with the fewest pending calls is chosen."""
    assert Choice(3).choose([[2, 1], [1, 1], [5, None]], 0.0) == (1, 0)


def test_ties_take_turns() -> None:
    """Idle addresses are taken in turn."""
    choice = Choice(3)
    assert [choice.choose([[0]] * 3, 0.0) for _ in range(6)] == [(0, 0), (1, 0), (2, 0)] * 2


def test_connections() -> None:
    """An idle connection goes before a new one, and a new one before waiting behind others."""
    assert Choice(1).choose([[1, 0, None]], 0.0) == (0, 1)
    assert Choice(1).choose([[1, 2, None]], 0.0) == (0, 2)
    assert Choice(1).choose([[3, 2, 4]], 0.0) == (0, 1)


def test_a_dead_address_rests_longer_each_time() -> None:
    """An address that cannot be reached is left alone, with growing pauses up to a bound, and tried again."""
    choice = Choice(2)
    now, rests = 0.0, []
    for _ in range(12):
        choice.failed(0, now)
        start = now
        while choice.choose([[0], [5]], now) != (0, 0):
            now += 0.05
        rests.append(round(now - start, 2))
    assert rests[0] <= 0.15
    assert rests == sorted(rests)
    assert 9.9 < rests[-1] < 10.2
    choice.reached(0)
    choice.failed(0, now)
    assert choice.choose([[0], [5]], now) == (1, 0)
    assert choice.choose([[0], [5]], now + 0.11) == (0, 0)


def test_a_connection_that_ends_under_many_calls_counts_once() -> None:
    """The address is set aside once for all of them; a connection that ends after its rest counts again."""
    choice = Choice(1)
    for now in (0.0, 0.0, 0.05, 0.5):
        choice.ended(0, now)
    assert choice.times_set_aside == [2]


def test_one_call_at_a_time_connects_to_an_address() -> None:
    """Meanwhile it rests for the others, unless all do; not once it has a connection, nor for ever."""
    choice = Choice(2)
    assert choice.choose([[None], [3]], 0.0) == (0, 0)
    assert choice.choose([[None], [3]], 0.0) == (1, 0)
    assert choice.choose([[0], [3]], 0.0) == (0, 0)
    assert choice.choose([[None], [3]], 60.0) == (0, 0)
    choice.reached(0)
    assert choice.choose([[None], [3]], 60.0) == (0, 0)
    choice.failed(0, 60.0)
    assert choice.choose([[None], [3]], 61.0) == (0, 0)
    choice = Choice(2)
    assert [choice.choose([[None], [None]], 0.0) for _ in range(4)] == [(0, 0), (1, 0)] * 2


def test_all_rest() -> None:
    """When all rest, the one whose rest ends first is tried rather than failing a call untried."""
    choice = Choice(2)
    choice.failed(0, 0.0)
    choice.failed(0, 0.0)
    choice.failed(1, 0.0)
    assert choice.choose([[0], [0]], 0.01) == (1, 0)


def test_all_tried() -> None:
    """A call that has tried them all is told so."""
    assert Choice(2).choose([[0], [0]], 0.0, {0}) == (1, 0)
    assert Choice(2).choose([[0], [0]], 0.0, {0, 1}) is None


loads = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.none() | st.integers(0, 5), min_size=width, max_size=width), min_size=1, max_size=5
    )
)


@given(loads)
def test_never_one_that_is_busier(loads: list[list[int | None]]) -> None:
    """Whatever the loads, nobody waits behind more calls than need be."""
    chosen = Choice(len(loads)).choose(loads, 0.0)
    assert chosen is not None
    address, connection = chosen
    assert sum(load or 0 for load in loads[address]) == min(sum(load or 0 for load in each) for each in loads)
    assert (loads[address][connection] or 0) == min(load or 0 for load in loads[address])


def test_idle_pool_is_shared_out_evenly() -> None:
    """Calls one after the other are spread over the addresses."""
    choice = Choice(4)
    assert set(Counter(choice.choose([[0, None]] * 4, 0.0) for _ in range(40)).values()) == {10}
