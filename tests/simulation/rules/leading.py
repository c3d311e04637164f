"""What must hold of the lead after every step, and in peace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..children.leading import Coordinator
from ..children.plugin import Plugin
from ..world.process import Fault
from ..world.world import World
from .plugins import is_out_of_sight

if TYPE_CHECKING:
    from ..afternoon import Afternoon

__all__ = ["OF_LEADERSHIP", "is_listed"]


def one_coordinator(world: World, actor: object) -> None:
    """Two of them never live at once, over an upgrade either: both would have one session, and fight for it."""
    for born in world.births:
        for other in world.of_noun[Coordinator.noun].values() if isinstance(born, Coordinator) else ():
            if other is not born and not is_out_of_sight(other, born):
                raise Fault(f"{born.name} is born, and {other.name} still lives")


def only_where_the_lead_is(world: World, actor: object) -> None:
    """Nothing is started that needs the lead while another one has it: the master looks before each start."""
    for born in world.births:
        if isinstance(born, Plugin) and born.options.leader_only and not world.store.page.is_leading:
            raise Fault(f"{born.name} is born as {born.plugin} {born.slot}, and the cluster does not lead")


OF_LEADERSHIP = [one_coordinator, only_where_the_lead_is]


def is_listed(afternoon: Afternoon) -> str:
    """The registry lists the cluster if its workers serve, and only then."""
    master = afternoon.masters()[-1]
    if master.parts.groups.named(Coordinator.group_name) is None:
        return ""
    serves = master.phase == "running" and bool(master.parts.workers.ready())
    found = bool(afternoon.world.store.listed)
    return "" if found == serves else f"the registry {'lists' if found else 'does not list'} the cluster"
