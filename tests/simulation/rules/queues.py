"""What must hold of queues after every step, and in peace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..children.queues import Keeper
from ..world.process import Fault
from ..world.world import World
from .plugins import is_out_of_sight

if TYPE_CHECKING:
    from ..afternoon import Afternoon

__all__ = ["OF_QUEUES", "keeper_knows"]


def one_keeper(world: World, actor: object) -> None:
    """Two keepers never live at once, over an upgrade either: only one can have the file."""
    for born in world.births:
        for other in world.of_noun[Keeper.noun].values() if isinstance(born, Keeper) else ():
            if other is not born and not is_out_of_sight(other, born):
                raise Fault(f"{born.name} is born, and {other.name} still lives")


OF_QUEUES = [one_keeper]


def keeper_knows(afternoon: Afternoon) -> str:
    """There is one keeper, and it was told of the queues that the configuration has."""
    sections = {section.name.partition(":")[2] for section in afternoon.plan.queues}
    if not sections:
        return ""
    keepers = list(afternoon.world.of_noun[Keeper.noun].values())
    if len(keepers) != 1:
        return f"there are {len(keepers)} keepers"
    return "" if keepers[0].known == sections else f"{keepers[0].name} knows the queues {keepers[0].known}"
