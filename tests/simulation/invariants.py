"""What must hold: after every step (`ALWAYS`), and once no fault has happened for a while (`IN_PEACE`).

Each is one function with a sentence. One of `ALWAYS` gets the one that has just taken a step, looks at what that step
may have changed, and raises `Fault`; one of `IN_PEACE` returns what is not well yet. That a connection is served by one
worker at most is held by `World.own`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rpccluster.address import UnixAddress
from rpccluster.config import OPTIONS, Effect
from rpccluster.ipc.scoreboard import Cell, CommonCell
from rpccluster.master.children import policy
from rpccluster.master.cluster import Staged
from rpccluster.master.upgrade.new_master import COMMIT_SECONDS, Stage
from rpccluster.master.upgrade.taking_groups import ENDING
from rpccluster.worker.lifecycle import State

from .client import Controller
from .leading import Coordinator
from .leading_invariants import is_listed
from .master import Master
from .pages import page_is_told
from .plan import OLDER
from .plugin_invariants import group_of
from .pool_invariants import dispatcher_knows
from .pools import TaskChild
from .queue_invariants import keeper_knows
from .worker import Worker
from .world import NEVER, Fault, World

if TYPE_CHECKING:
    from .afternoon import Afternoon

__all__ = ["ALWAYS", "IN_PEACE"]

SHARED_SECONDS = 5.0
MOST_SLEEPLESS_TURNS = 50  # ten times as many as any afternoon needs


def bounded_processes(world: World, actor: object) -> None:
    """A slot has one process that fills it, and at most one more that is to replace it."""
    if isinstance(actor, Master) and world.births:
        held = [child.slot for child in actor.parts.workers.children if child.is_holding]
        for slot in set(held):
            allowed = 3 if slot == 0 else 2  # the first worker of a reload stands beside that of slot 0
            if held.count(slot) > allowed:
                raise Fault(f"{actor.name} has {held.count(slot)} workers for slot {slot}")


def deadlines_wake(world: World, actor: object) -> None:
    """A master that sleeps has nothing to do that no event asks for, until the time for which it has set its alarm."""
    if not isinstance(actor, Master) or actor.parts is None or not actor.is_alive:
        return
    if actor.wake_at <= world.now or world.now < actor.looks_at:
        return
    actor.looks_at = world.now + 1.0  # now and then: it costs as much as a turn
    until = actor.wake_at
    moment = min(until, world.now + 60.0) - 0.001
    for group in actor.parts.groups.all if moment > world.now else ():
        is_watched = group.options.timeout and any(child.row[CommonCell.HEARTBEAT] == 0 for child in group.children)
        actions = [] if is_watched else policy.decide(group, moment).actions
        if actions:
            raise Fault(f"{actor.name} sleeps until {until:.3f}, though at {moment:.3f} it has {_told(actions[0])}")


def nobody_spins(world: World, actor: object) -> None:
    """A master has soon done what is due, and sleeps: one whose alarm is always past would take a whole CPU."""
    if isinstance(actor, Master) and actor.sleepless_turns > MOST_SLEEPLESS_TURNS:
        raise Fault(f"{actor.name} spins: {actor.sleepless_turns} turns without any sleep")


def _told(action: policy.Action) -> str:
    """Tell an action without the address of an object, which no other run has."""
    if isinstance(action, policy.Spawn):
        return f"to start a process in slot {action.slot}"
    return f"to {type(action).__name__.lower()} process {action.child.pid}"


def restarts_pause(world: World, actor: object) -> None:
    """Workers of a slot that never get ready are started again ever more slowly, up to the longest pause."""
    for worker in world.births:
        if isinstance(worker, TaskChild):  # a spare may take its slot
            continue
        group = group_of(worker)
        options = group.options
        counted = (death for death in group.deaths.get(worker.slot, ()) if death.at > group.forgiven_at)
        failed = [death for death in counted if death.ready_at is not None or not death.is_clean]
        in_a_row = 0
        for death in reversed(failed):
            if death.ready_at is not None or death.was_asked:
                break
            in_a_row += 1
        others = [child for child in group.children if child.slot == worker.slot and child.pid != worker.pid]
        is_candidate = group.section.staged is not None
        if in_a_row > 2 and not others and not is_candidate:
            due = min(options.restart_delay_max, options.restart_delay * 2 ** (in_a_row - 3))
            if world.now < failed[-1].at + due - 0.001:
                raise Fault(f"{worker.name} is started {world.now - failed[-1].at:.1f} s after {in_a_row} failed boots")
    world.births.clear()


def _alike(one: Any, other: Any) -> bool:
    """Return whether workers of two configurations would be the same."""
    if one is other:
        return True
    of_workers = [key for key, option in OPTIONS.items() if option.effect is not Effect.NOW]
    return other is not None and all(getattr(one.options, key) == getattr(other.options, key) for key in of_workers)


def one_generation_at_a_time(world: World, actor: object) -> None:
    """A reload is all or nothing: a worker has a generation that was committed, or proves the next one."""
    if isinstance(actor, Master) and actor.parts is not None:
        cluster, group = actor.parts.cluster, actor.parts.workers
        newest = cluster.generation + (cluster.staged is not None)
        for child in group.children:
            if child.generation > newest and not child.is_killed:
                raise Fault(f"worker {child.pid} is of generation {child.generation}, the cluster of {newest}")
            proved = cluster if child.generation == cluster.generation else cluster.staged
            is_later = child.generation >= cluster.generation and not child.is_killed
            if is_later and isinstance(child.edition, Staged) and not _alike(child.edition.configuration, _of(proved)):
                raise Fault(f"worker {child.pid} of generation {child.generation} has another configuration than that")


def _of(edition: Any) -> object:
    return edition.configuration if edition is not None else None


def kills_have_reasons(world: World, actor: object) -> None:
    """A process that does its work is killed by nobody but a quick stop, and the end of its master."""
    if isinstance(actor, Master) and actor.parts is not None:
        is_awaited = actor.parts.workers.is_awaited
        if is_awaited or actor.was_awaited:  # it was so until this step
            actor.awaited_at = world.now
        actor.was_awaited = is_awaited
    kills, world.kills = world.kills, []
    for killer, pid in kills:
        target = world.processes.get(pid)
        if killer.supervisor.exit_code is not None or killer.phase == "quitting":
            continue
        if isinstance(target, Master) and target.phase not in ("", "joining", "standby"):
            if world.now < killer.committing_since + COMMIT_SECONDS:
                raise Fault(f"{killer.name} kills {target.name}, which has taken over in time")
        elif isinstance(target, Coordinator) and target.is_silent:
            world.count("fault", "coordinator killed for its silence")
        elif isinstance(target, Worker):
            _check_reason(killer, target)


def _check_reason(killer: Master, worker: Worker) -> None:
    if worker.is_deaf or (worker.hangs_until and worker.hangs_until >= max(worker.retired_at, worker.world.now - 5.0)):
        return  # it may have heard in this moment what it was told long ago
    reason = next((child.kill_reason for child in killer.parts.workers.children if child.pid == worker.pid), "")
    if worker.state is State.SERVING and not reason.startswith("overtaken"):
        raise Fault(f"{killer.name} kills {worker.name}, which serves: {reason}")
    if killer.seconds_late >= 1.0:  # it stood still, and could not tell it anything before
        return
    is_free = worker.state is State.RETIRING and not worker.has_work and worker.world.now > killer.awaited_at + 0.5
    if is_free:
        raise Fault(f"{killer.name} kills {worker.name}, which has nothing left to do: {reason}")
    is_told = worker.order is None or worker.order.whole_cluster
    if killer.phase == "stopping" and not is_told and killer.seconds_late < 1.0:
        raise Fault(f"{killer.name} kills {worker.name}, which was never told that the cluster stops: {reason}")


def stopping_lets_nobody_take_over(world: World, actor: object) -> None:
    """In a master that stops, no upgrade is under way."""
    if isinstance(actor, Master) and actor.phase in ("stopping", "quitting") and actor.parts.new_master.is_under_way:
        raise Fault(f"{actor.name} is {actor.phase}, and its upgrade goes on")


def one_owner(world: World, actor: object) -> None:
    """Two masters do not own the cluster for longer than `SHARED_SECONDS`, unless one of them stands still."""
    masters = world.of_noun[Master.noun].values()
    if len(masters) < 2 or world.plan.version == OLDER:  # one of protocol 1 cannot know
        world.shared_since = NEVER
        return
    owners = [each for each in masters if each.phase in ("running", "drained") and not each.is_committing]
    if len(owners) < 2 or any(each.resumes_at > world.now + 0.5 for each in owners):
        world.shared_since = NEVER
        return
    world.shared_since = min(world.shared_since, world.now)
    if world.now > world.shared_since + SHARED_SECONDS:
        raise Fault(f"{owners[0].name} and {owners[1].name} both own the cluster")


def pidfile_is_signed(world: World, actor: object) -> None:
    """As soon as a master is alone, the pidfile has its pid."""
    if not isinstance(actor, Master) or actor.phase not in ("running", "drained"):
        return
    if len(world.of_noun[Master.noun]) > 1 or actor.parts.new_master.is_under_way:  # it may hear of the end late
        actor.turns_alone = 0
        return
    actor.turns_alone += 1
    pidfile = actor.parts.ownership.pidfile
    has_room = world.now > world.scarcity.disk_is_full_until + 15.0
    if actor.turns_alone == 2 and has_room and not pidfile.names(actor.pid):
        raise Fault(f"{actor.name} is the only master, and its pidfile does not name it")


def connections_go_to_the_living(world: World, actor: object) -> None:
    """A master whose new master has ended gives that one no further connection."""
    if not isinstance(actor, Master) or actor.parts is None or actor.parts.new_master.stage is not Stage.DONE:
        return
    passed_on = {cid for cid, each in actor.parts.broker._transits.items() if each.is_with_new_master}
    if actor.phase != "leaving" and not actor.has_just_stopped and passed_on - actor.passed_on:
        raise Fault(f"{actor.name} gives a connection to a new master that has ended")
    actor.passed_on = passed_on


@dataclass
class Bequest:
    """What a master was told during an upgrade, and a new one must know: how many workers are wanted."""

    number: int
    generation: int
    commands: int  # how many there were in this world
    turns: int = 0  # of the new master, since the old one has ended


def paths_stay(world: World, actor: object) -> None:
    """A master that leaves unlinks nothing."""
    if isinstance(actor, Master) and actor.has_just_left:
        new = world.processes.get(actor.parts.new_master.pid)
        held = new.parts.cluster.listeners if isinstance(new, Master) and new.parts is not None else []
        for listener in held:
            path = listener.wanted.path if isinstance(listener.wanted, UnixAddress) else ""
            if path and path not in world.removed and not os.path.exists(path):
                raise Fault(f"{actor.name} has left, and the path of {os.path.basename(path)} is gone")


def orders_are_passed_on(world: World, actor: object) -> None:
    """A new master wants as many workers as the old one was told to want since the upgrade began."""
    if not isinstance(actor, Master) or actor.parts is None:
        return
    if actor.has_just_left:
        _note_bequest(world, actor)
    elif actor.phase != "leaving":
        actor.aim = _aim(actor)
        if actor.parts.new_master.stage is Stage.NONE or actor.has_just_begun:
            actor.aim_before_upgrade = actor.aim
    left = actor.bequest
    if left is not None and not actor.parent.is_alive:
        left.turns += 1
        is_other = actor.parts.cluster.generation != left.generation or actor.phase not in ("running", "drained")
        if is_other or world.commands != left.commands or world.is_calm:
            actor.bequest = None
        elif left.turns > 3 and not actor.parts.reloading.is_under_way:
            actor.bequest = None
            if _aim(actor) != left.number:
                raise Fault(
                    f"{left.number} workers were asked for in the upgrade, and {actor.name} wants {_aim(actor)}"
                )


def _note_bequest(world: World, old: Master) -> None:
    new = world.processes.get(old.parts.new_master.pid)
    is_asked = any(isinstance(each, Controller) for each in world.clients.values())
    if (
        isinstance(new, Master)
        and new.parts is not None
        and old.aim != old.aim_before_upgrade
        and not (is_asked or world.plan.version)
    ):
        new.bequest = Bequest(old.aim, new.parts.cluster.generation, old.commands_at_go)


def _aim(master: Master) -> int:
    phase = master.parts.cluster.phase
    return master.parts.workers.wanted if phase.allows.wants_children else 0


ALWAYS = [
    bounded_processes,
    deadlines_wake,
    nobody_spins,
    restarts_pause,
    one_generation_at_a_time,
    kills_have_reasons,
    stopping_lets_nobody_take_over,
    one_owner,
    pidfile_is_signed,
    paths_stay,
    orders_are_passed_on,
    connections_go_to_the_living,
]


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
]
