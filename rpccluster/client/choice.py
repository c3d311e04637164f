"""Which of a pool's addresses, and which of its connections there, a call takes. Pure: times and loads are handed in.

The least pending calls win, and turns break ties. An address that could not be reached rests, longer each time;
when all of them rest, the one whose rest ends first is tried rather than failing a call untried.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Optional

__all__ = ["Choice", "Loads"]

#: For each address, for each of its connections: how many calls are pending there, None if it is not connected.
Loads = Sequence[Sequence[Optional[int]]]

_FIRST_REST_SECONDS = 0.1
_LONGEST_REST_SECONDS = 10.0


class Choice:
    """Remembers whose turn it is, and which of ``addresses`` rest until when."""

    def __init__(self, addresses: int) -> None:
        self._failures = [0] * addresses
        self._rests_until = [0.0] * addresses
        self._turn = 0

    def choose(self, loads: Loads, now: float, tried: Container[int] = ()) -> tuple[int, int] | None:
        """An address that was not ``tried`` and a connection of it, by their indexes; None if all were."""
        left = [index for index in range(len(loads)) if index not in tried]
        if not left:
            return None
        awake = [index for index in left if self._rests_until[index] <= now]
        address = self._least_loaded(awake, loads) if awake else min(left, key=self._rests_until.__getitem__)
        self._turn = address + 1
        return address, _connection(loads[address])

    def _least_loaded(self, awake: list[int], loads: Loads) -> int:
        count = len(loads)
        return min(awake, key=lambda index: (sum(load or 0 for load in loads[index]), (index - self._turn) % count))

    def failed(self, address: int, now: float) -> None:
        """It could not be reached: it rests from ``now`` on."""
        rest = min(_FIRST_REST_SECONDS * 2 ** min(self._failures[address], 10), _LONGEST_REST_SECONDS)
        self._failures[address] += 1
        self._rests_until[address] = now + rest

    def reached(self, address: int) -> None:
        """It could be reached: its next rest is a short one again."""
        self._failures[address] = 0
        self._rests_until[address] = 0.0


def _connection(loads: Sequence[int | None]) -> int:
    """An idle connection, else a new one, else the least loaded."""
    order = {0: -2, None: -1}
    return min(range(len(loads)), key=lambda index: order.get(loads[index], loads[index] or 0))
