"""What must hold of a master's children after every step."""

from __future__ import annotations

from typing import Any

from rpccluster.config import OPTIONS, Effect
from rpccluster.master.cluster import Staged
from rpccluster.master.upgrade.new_master import COMMIT_SECONDS
from rpccluster.worker.lifecycle import State

from ..children.leading import Coordinator
from ..children.pools import TaskChild
from ..children.serving.worker import Worker
from ..masters.master import Master
from ..world.process import Fault
from ..world.world import World
from .plugins import group_of

__all__ = ["bounded_processes", "kills_have_reasons", "one_generation_at_a_time", "restarts_pause"]


def bounded_processes(world: World, actor: object) -> None:
    """A slot has one process that fills it, and at most one more that is to replace it."""
    if isinstance(actor, Master) and world.births:
        held = [child.slot for child in actor.parts.workers.children if child.is_holding]
        for slot in set(held):
            allowed = 3 if slot == 0 else 2  # the first worker of a reload stands beside that of slot 0
            if held.count(slot) > allowed:
                raise Fault(f"{actor.name} has {held.count(slot)} workers for slot {slot}")


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


def _alike(one: Any, other: Any) -> bool:
    """Return whether workers of two configurations would be the same."""
    if one is other:
        return True
    of_workers = [key for key, option in OPTIONS.items() if option.effect is not Effect.NOW]
    return other is not None and all(getattr(one.options, key) == getattr(other.options, key) for key in of_workers)


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
    if worker.is_deaf or (
        worker.hangs_until and worker.hangs_until >= max(worker.retiring.since, worker.world.now - 5.0)
    ):
        return  # it may have heard in this moment what it was told long ago
    reason = next((child.kill_reason for child in killer.parts.workers.children if child.pid == worker.pid), "")
    if worker.state is State.SERVING and not reason.startswith("overtaken"):
        raise Fault(f"{killer.name} kills {worker.name}, which serves: {reason}")
    if killer.seconds_late >= 1.0:  # it stood still, and could not tell it anything before
        return
    is_free = worker.state is State.RETIRING and not worker.has_work and worker.world.now > killer.awaited_at + 0.5
    if is_free:
        raise Fault(f"{killer.name} kills {worker.name}, which has nothing left to do: {reason}")
    is_told = worker.retiring.order is None or worker.retiring.order.whole_cluster
    if killer.phase == "stopping" and not is_told and killer.seconds_late < 1.0:
        raise Fault(f"{killer.name} kills {worker.name}, which was never told that the cluster stops: {reason}")
