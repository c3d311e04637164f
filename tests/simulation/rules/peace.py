"""What must hold once no fault has happened for a while (`IN_PEACE`). Each rule returns what is not well yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpccluster.ipc.scoreboard import Cell
from rpccluster.master.upgrade.taking_groups import ENDING

from ..plans.plan import OLDER
from ..users.client import Controller
from .leading import is_listed
from .pages import page_is_told
from .pools import dispatcher_knows
from .queues import keeper_knows

if TYPE_CHECKING:
    from ..afternoon import Afternoon

__all__ = ["IN_PEACE"]


# -- in peace
def one_master(afternoon: Afternoon) -> str:
    """One master is left, and it runs, unless it is drained or ends.

    While callers wait at a drained one, an old master that has passed their connections on may stay.
    """
    masters = afternoon.masters()
    phase = masters[-1].phase
    if any(each.inbox.has_any for each in masters):
        return "a signal was not obeyed yet"
    if len(masters) != 1 and not _callers_wait(afternoon):
        return f"there are {len(masters)} masters"
    return "" if phase in ("running", "drained") else f"the master is {phase}"


def as_many_as_wanted(afternoon: Afternoon) -> str:
    """Each wanted slot has a ready worker, and no other process is left."""
    master = afternoon.masters()[-1]
    workers = master.parts.workers
    if not workers.phase.allows.wants_children:
        return "workers are left in a drained cluster" if workers.children else ""
    if not workers.is_settled():
        found = ", ".join(f"{child.slot}: {child.state.value}" for child in workers.children)
        return f"{workers.wanted} workers are wanted, and there are {found or 'none'}"
    return "" if len(afternoon.workers()) == workers.wanted else "there are workers that the master does not know"


def plugins_run(afternoon: Afternoon) -> str:
    """Each plugin and each pool has as many ready processes as it wants, or has finished."""
    for group in afternoon.masters()[-1].parts.groups.all:
        if group.stopped == ENDING:
            return f"{group.name} was stopped with a cluster that goes on"
        if group.kind.name != "rpc" and not group.is_settled():
            found = ", ".join(f"{child.slot}: {child.state.value}" for child in group.children)
            return f"{group.wanted} processes of {group.name} are wanted, and there are {found or 'none'}"
    return ""


def nothing_under_way(afternoon: Afternoon) -> str:
    """No reload, no upgrade, no connection is under way."""
    parts = afternoon.masters()[-1].parts
    if parts.reloading.is_under_way:
        return "a reload is still under way"
    if parts.new_master.is_under_way:
        return "an upgrade is still under way"
    is_moving = parts.broker.in_transit and not _callers_wait(afternoon)
    return f"{parts.broker.in_transit} connections are in transit" if is_moving else ""


def _callers_wait(afternoon: Afternoon) -> bool:
    """Return whether the master holds connections for which no worker is wanted."""
    master = afternoon.masters()[-1]
    return master.phase == "drained" and master.parts.broker.in_transit > 0


def served(afternoon: Afternoon) -> str:
    """Each connection that may not end is served by a worker, and its calls are answered."""
    if not afternoon.masters()[-1].parts.workers.ready():
        return ""
    limits = sum(worker.row[Cell.CONNECTION_LIMIT] for worker in afternoon.workers())
    owned = {client for worker in afternoon.workers() for client in worker.connections}
    for client in afternoon.world.clients.values():
        if client.excuse:
            continue
        if client.number not in owned and len(owned) < limits:
            return f"the connection of {client.name} is served by nobody"
        if client.number in owned and client.open_calls:
            return f"calls of {client.name} are not answered"
    return ""


def copies_are_needed(afternoon: Afternoon) -> str:
    """The masters have copies of those connections alone that their workers serve, and of each that is covered."""
    workers = {worker.pid: worker for worker in afternoon.workers()}
    for master in afternoon.masters():
        for child, held in master.parts.broker._copies._copies.items():
            worker = workers.get(child.pid)
            served = {each.number for each in worker.connections.by_client.values()} if worker is not None else set()
            if not served.issuperset(held):
                return f"{master.name} has copies of {len(set(held) - served)} connections that have ended"
    return _uncovered(afternoon)


def _uncovered(afternoon: Afternoon) -> str:
    held = {
        number
        for master in afternoon.masters()
        for copies in master.parts.broker._copies._copies.values()
        for number in copies
    }
    for worker in afternoon.workers():
        for connection in worker.connections.by_client.values():
            if connection.is_kept and connection.number not in held:
                return f"of the connection of client {connection.client} there is no copy"
    return ""


def pidfile_names_it(afternoon: Afternoon) -> str:
    """The pidfile has the pid of the master that is left."""
    try:
        with open(afternoon.paths["pid"]) as file:
            found = file.read().strip()
    except OSError:
        found = "nothing"
    pid = afternoon.masters()[-1].pid
    return "" if found == str(pid) else f"the pidfile names {found}, and the master is {pid}"


def answered(afternoon: Afternoon) -> str:
    """Whoever has asked at the control socket has an answer."""
    waiting = [each for each in afternoon.world.clients.values() if isinstance(each, Controller)]
    return f"{waiting[0].name} waits for an answer to {waiting[0].method}" if waiting else ""


def no_stop_is_forgotten(afternoon: Afternoon) -> str:
    """A stop of the master that owns everything ends the cluster, whatever else happens."""
    if not afternoon.world.must_end or afternoon.plan.version == OLDER:  # one of protocol 1 cannot know
        return ""
    return f"a stop was obeyed, and {afternoon.masters()[-1].name} lives"


IN_PEACE = [
    no_stop_is_forgotten,
    answered,
    one_master,
    pidfile_names_it,
    as_many_as_wanted,
    plugins_run,
    dispatcher_knows,
    is_listed,
    keeper_knows,
    page_is_told,
    nothing_under_way,
    served,
    copies_are_needed,
]
