"""What the master should do next, decided purely from what it knows and the time. No I/O, no clock.

`decide` is called after every event and every tick and must be safe to call again: what it asked for shows in
the handles before the next call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Union

from rpccluster.config.sections.cluster import Options
from rpccluster.master.children.child import HUNG, Overdue, WorkerHandle, WorkerState
from rpccluster.master.phases import Permissions, Phase

__all__ = [
    "Action",
    "Dismiss",
    "Finish",
    "Halt",
    "Kill",
    "Question",
    "Retire",
    "Situation",
    "Spawn",
    "Started",
    "decide",
]

BEAT_SECONDS = 0.5  # workers beat so often; silence counts only beyond it
ANSWER_SECONDS = 0.3  # a hung worker has so long to dump its stack before it is killed


class Spawn(NamedTuple):
    """Start a worker."""

    slot: int
    generation: int


class Retire(NamedTuple):
    """Let a worker finish and end."""

    worker: WorkerHandle
    reason: str


class Dismiss(NamedTuple):
    """No connection can come any more to a worker that retires and stays for that: let it end."""

    worker: WorkerHandle


class Question(NamedTuple):
    """Ask a hung worker where it is."""

    worker: WorkerHandle


class Kill(NamedTuple):
    """End a worker with SIGKILL."""

    worker: WorkerHandle
    reason: str


class Started(NamedTuple):
    """Every worker of the start has booted or failed, and at least one serves."""


class Halt(NamedTuple):
    """No worker could boot: end with the reason."""


class Finish(NamedTuple):
    """Nothing is left to wait for: end."""


Action = Union[Spawn, Retire, Dismiss, Question, Kill, Started, Halt, Finish]


@dataclass
class Situation:
    """All that `decide` looks at. Times are monotonic seconds."""

    phase: Phase
    workers: list[WorkerHandle]
    options: Options
    number_workers: int
    generation: int
    staged_generation: int | None = None  # of a reload whose first worker has yet to prove it
    is_rolling: bool = False  # older generations are being replaced
    reloaded_at: float = 0.0
    spawn_at: float = 0.0  # the system had no room for one more process until then
    start_at: Mapping[int, float] = field(default_factory=dict)  # slots whose restarts back off until then
    has_failed: bool = False  # a worker of the start could not boot
    in_transit: int = 0  # connections that the new master of an upgrade has not acknowledged
    awaits_connections: bool = False  # some may still come to workers: from others, or from an old master

    @property
    def allows(self) -> Permissions:
        """What the master may do in its phase."""
        return self.phase.allows

    def may_start(self, slot: int, now: float) -> bool:
        """Whether the slot's restarts do not back off."""
        return slot not in self.start_at or now >= self.start_at[slot]


def decide(situation: Situation, now: float) -> list[Action]:
    """What to do now. Pure."""
    return [*_kill_overdue(situation, now), *_dismiss(situation), *_as_allowed(situation, now)]


def _as_allowed(situation: Situation, now: float) -> Iterator[Action]:
    allows = situation.allows
    if allows.is_starting:
        yield from _start(situation)
    if allows.starts_children:
        yield from _run(situation, now)
    if not allows.wants_children:
        yield from _kill_all(situation) if allows.kills_children else _retire_all(situation)
    if allows.ends_when_empty and not situation.workers and not (allows.hands_over and situation.in_transit):
        yield Finish()


def _kill_overdue(situation: Situation, now: float) -> Iterator[Action]:
    timeout = situation.options.timeout
    for worker in situation.workers:
        if worker.is_killed:
            continue
        if worker.questioned_at is not None:
            if now >= worker.questioned_at + ANSWER_SECONDS:
                yield Kill(worker, HUNG)
        elif worker.kill_at is not None and now >= worker.kill_at:
            yield Kill(worker, "it did not finish in graceful_timeout")
        elif timeout and worker.silent_seconds > timeout + BEAT_SECONDS:
            yield Question(worker)


def _dismiss(situation: Situation) -> Iterator[Action]:
    if not situation.awaits_connections:
        yield from (Dismiss(worker) for worker in situation.workers if worker.stays and not worker.is_killed)


def _start(situation: Situation) -> Iterator[Action]:
    if any(worker.state is WorkerState.BOOTING for worker in situation.workers):
        return
    allows, serves = situation.allows, any(worker.is_ready for worker in situation.workers)
    if not serves or (allows.needs_all_children and situation.has_failed):
        yield Halt()
    elif allows.awaits_first_boots:
        yield Started()


def _run(situation: Situation, now: float) -> Iterator[Action]:
    leave = list(_retire_surplus(situation, now))
    yield from leave
    if now >= situation.spawn_at:
        yield from _try_staged(situation)
        vacant = list(_fill_slots(situation, now))
        yield from vacant if vacant or leave else _replace(situation, now)


def _retire_surplus(situation: Situation, now: float) -> Iterator[Retire | Kill]:
    """Workers above the number wanted, and those whose successor is ready."""
    newest: dict[int, WorkerHandle] = {}
    for worker in situation.workers:
        if worker.is_ready and worker.slot < situation.number_workers:
            best = newest.get(worker.slot)
            if best is None or (worker.generation, worker.booted_at) >= (best.generation, best.booted_at):
                newest[worker.slot] = worker
    for worker in situation.workers:
        surplus = worker.slot >= situation.number_workers
        if worker.is_ready and newest.get(worker.slot) is not worker:
            overdue = _overdue(situation, worker, now)
            yield Retire(worker, "scaled down" if surplus else overdue.reason if overdue else "replaced")
        elif surplus and worker.state is WorkerState.BOOTING and not worker.is_killed:
            yield Kill(worker, "scaled down")


def _try_staged(situation: Situation) -> Iterator[Action]:
    """A reload's first worker; it waits for no vacant slot, which may be what the reload is to mend."""
    staged = situation.staged_generation
    if staged is not None and all(w.generation != staged or w.is_expected_to_end for w in situation.workers):
        yield Spawn(0, staged)


def _fill_slots(situation: Situation, now: float) -> Iterator[Action]:
    held = {worker.slot for worker in situation.workers if worker.is_holding}
    for slot in range(situation.number_workers):
        if slot not in held and situation.may_start(slot, now):
            yield Spawn(slot, situation.generation)


def _replace(situation: Situation, now: float) -> Iterator[Action]:
    """One successor at a time, that of the worker overdue longest; whoever has one has left.

    Not while connections move: the calls on them would wait for the CPU that a boot takes.
    """
    if situation.staged_generation is not None:
        return
    if any(worker.is_moving(now) for worker in situation.workers):
        return
    if any(worker.state is WorkerState.BOOTING and not worker.is_expected_to_end for worker in situation.workers):
        return  # one that hangs, too: its burial may end a reload's replacing
    retiring = sum(worker.state is WorkerState.RETIRING for worker in situation.workers)
    if retiring >= situation.number_workers:  # successors must not pile up beside slow leavers
        return
    overdue = [
        (reason.since, worker.slot)
        for worker in situation.workers
        if situation.may_start(worker.slot, now) and (reason := _overdue(situation, worker, now))
    ]
    if overdue:
        yield Spawn(min(overdue)[1], situation.generation)


def _overdue(situation: Situation, worker: WorkerHandle, now: float) -> Overdue | None:
    """Since when and why the worker should be replaced; None if it need not."""
    if not worker.is_ready or worker.ready_at is None:
        return None
    reasons = [worker.overdue] if worker.overdue else []
    if situation.is_rolling and worker.generation < situation.generation:
        reasons.append(Overdue(situation.reloaded_at, "reload"))
    lifetime = situation.options.max_lifetime
    if lifetime and now >= worker.ready_at + lifetime:
        reasons.append(Overdue(worker.ready_at + lifetime, "max_lifetime"))
    return min(reasons, default=None)


def _retire_all(situation: Situation) -> Iterator[Action]:
    for worker in situation.workers:
        if worker.is_ready or _must_hurry(situation, worker):
            yield Retire(worker, situation.phase.value)
        elif worker.state is WorkerState.BOOTING and not worker.is_killed:
            yield Kill(worker, situation.phase.value)


def _must_hurry(situation: Situation, worker: WorkerHandle) -> bool:
    """Whether it retires for a reason of its own, but has yet to hear that connections end, too."""
    reason = situation.phase.value
    is_retiring = worker.state is WorkerState.RETIRING and not worker.is_killed
    return not situation.allows.connections_move and is_retiring and worker.retire_reason != reason


def _kill_all(situation: Situation) -> Iterator[Action]:
    for worker in situation.workers:
        if not worker.is_killed:
            yield Kill(worker, "quick stop")
