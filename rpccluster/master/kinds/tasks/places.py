"""Decides which process of a pool has which slot, and which of them the dispatcher gets. Pure; runs in the master.

The slots below ``wanted`` are for tasks, the others for spares: processes that have booted, and get no tasks. As soon
as a slot for tasks has no process that serves, a spare moves there, so that nobody waits for a boot; a process that
boots there takes the spare's slot instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["Move", "Placed", "moves"]


class Placed(Protocol):
    """The part of a process that matters here."""

    slot: int
    generation: int
    booted_at: float

    @property
    def is_ready(self) -> bool: ...
    @property
    def is_holding(self) -> bool: ...


class Move(NamedTuple):
    """A process gets the slot ``slot``; it is ready, or it boots in exchange."""

    child: Placed
    slot: int


def moves(children: Sequence[Placed], wanted: int) -> list[Move]:
    """Return the moves that fill the slots below ``wanted`` with spares; the newest generation goes first."""
    served = {child.slot for child in children if child.is_ready}
    spares = [child for child in children if child.is_ready and child.slot >= wanted]
    spares.sort(key=lambda child: (-child.generation, child.booted_at, child.slot))
    found: list[Move] = []
    for slot, spare in zip((slot for slot in range(wanted) if slot not in served), spares):
        booting = [child for child in children if child.slot == slot and child.is_holding]
        found += [Move(spare, slot), *(Move(child, spare.slot) for child in booting)]
    return found
