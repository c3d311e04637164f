"""Which process of a pool has which slot: a spare is where one is missing, and nobody else moves."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from rpccluster.master.kinds.tasks.places import moves


@dataclass(eq=False)
class Process:
    """A process of a pool."""

    slot: int
    is_ready: bool = True
    is_holding: bool = True
    generation: int = 1
    booted_at: float = 0.0


def moved(processes: list[Process], wanted: int) -> list[int]:
    """The slots of the processes after the moves."""
    for child, slot in moves(processes, wanted):
        child.slot = slot
    return [process.slot for process in processes]


def test_nobody_moves_where_all_serve() -> None:
    """A spare stays one."""
    assert moves([Process(0), Process(1), Process(2)], 2) == []


def test_a_spare_moves_to_an_empty_slot() -> None:
    """Whether it is empty, or its process was killed and has not ended."""
    assert moved([Process(1), Process(2)], 2) == [1, 0]
    assert moved([Process(0, False, False), Process(1), Process(2)], 2) == [0, 1, 0]


def test_one_that_boots_takes_the_spares_slot() -> None:
    """So that there is a spare again when it is ready."""
    assert moved([Process(0, is_ready=False), Process(1), Process(2)], 2) == [2, 1, 0]


def test_a_spare_that_boots_helps_nobody() -> None:
    """It moves when it is ready."""
    assert moved([Process(1), Process(2, is_ready=False)], 2) == [1, 2]


def test_the_newest_generation_goes_first() -> None:
    """Then the oldest process."""
    assert moved([Process(2, generation=1), Process(3, generation=2), Process(4, generation=2)], 1) == [2, 0, 4]
    assert moved([Process(2, booted_at=9.0), Process(3, booted_at=8.0)], 1) == [2, 0]


def test_a_successor_that_is_not_ready_leaves_its_predecessor_alone() -> None:
    """That one serves until then."""
    assert moved([Process(0), Process(0, is_ready=False, generation=2), Process(1)], 1) == [0, 0, 1]


processes = st.builds(
    Process,
    slot=st.integers(0, 5),
    is_ready=st.booleans(),
    generation=st.integers(1, 3),
    booted_at=st.floats(0, 9),
)


@given(st.lists(processes, max_size=10), st.integers(0, 5))
def test_after_the_moves_as_many_slots_serve_as_can(found: list[Process], wanted: int) -> None:
    """No slot gets two, nobody who serves for tasks moves, and there is nothing more to move."""
    before = {id(each): each.slot for each in found}
    spares = sum(each.is_ready and each.slot >= wanted for each in found)
    served = {each.slot for each in found if each.is_ready and each.slot < wanted}
    moved(found, wanted)
    ready = [each.slot for each in found if each.is_ready and each.slot < wanted]
    assert len(set(ready)) == min(wanted, len(served) + spares)
    assert all(each.slot == before[id(each)] for each in found if each.is_ready and before[id(each)] < wanted)
    assert moves(found, wanted) == []
