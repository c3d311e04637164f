"""What the master knows of its cluster, in one place: phase, configuration, generation, listeners, workers.

Data and views of it; the policy's `Situation` and the contract's ``status`` are made here. Runs in the master.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rpccluster.child.own_code import OwnCode
from rpccluster.config.configuration import Configuration
from rpccluster.config.sections.cluster import Options
from rpccluster.ipc.scoreboard import LIMITS, Cell, CommonCell
from rpccluster.log import LogFiles
from rpccluster.master.children.child import WorkerHandle, WorkerState
from rpccluster.master.children.deaths import Restarts
from rpccluster.master.children.policy import Situation
from rpccluster.master.handover.broker import Broker
from rpccluster.master.kinds.totals import Totals
from rpccluster.master.phases import Event, Phase, next_phase
from rpccluster.master.resources.listeners import Listener
from rpccluster.version import __version__

__all__ = ["Cluster", "Staged"]


@dataclass
class Staged:
    """A reload that has yet to prove itself: what its first worker is born with."""

    configuration: Configuration
    generation: int
    listeners: list[Listener]
    logs: LogFiles
    candidate: WorkerHandle | None = None


@dataclass
class Cluster:
    """The cluster as its master sees it. Times are monotonic seconds."""

    configuration: Configuration
    generation: int
    listeners: list[Listener]
    logs: LogFiles
    workers: list[WorkerHandle]
    started_at: float
    phase: Phase = Phase.STARTING
    number_workers: int = 0
    staged: Staged | None = None
    is_rolling: bool = False
    reloaded_at: float = 0.0
    has_old_master: bool = False  # which lives, and may have more connections to give
    failure: str = ""  # why a worker of the start, or lately any, could not boot
    failed_at: float = 0.0
    is_service_at_fault: bool = False
    broker: Broker | None = None
    restarts: Restarts = field(default_factory=Restarts)
    own_code: OwnCode | None = None  # what workers boot with
    totals: Totals = field(default_factory=Totals)
    spawn_at: float = 0.0  # the system had no room for one more process until then

    @property
    def options(self) -> Options:
        """The options in force."""
        return self.configuration.options

    @property
    def title(self) -> str:
        """The master's process title; the contract fixes its form."""
        return f"rpccluster: master [{self.options.proc_name}]"

    def note(self, event: Event) -> bool:
        """Change the phase as its table says: whether it has changed. Raises `IllegalTransition`."""
        before = self.phase
        self.phase = next_phase(before, event)
        return self.phase is not before

    def ready(self) -> list[WorkerHandle]:
        """The workers that serve."""
        return [worker for worker in self.workers if worker.is_ready]

    def situation(self) -> Situation:
        """What the policy looks at."""
        return Situation(
            phase=self.phase,
            workers=list(self.workers),
            options=self.options,
            number_workers=self.number_workers,
            generation=self.generation,
            staged_generation=self.staged.generation if self.staged else None,
            is_rolling=self.is_rolling,
            reloaded_at=self.reloaded_at,
            spawn_at=self.spawn_at,
            start_at=self.restarts.start_at(),
            has_failed=bool(self.failure),
            in_transit=self.broker.in_transit if self.broker else 0,
            awaits_connections=self.has_old_master or bool(self.broker and self.broker.is_moving),
        )

    def is_settled(self) -> bool:
        """Whether every slot wanted has a worker that serves, and no other slot has one left."""
        slots = {worker.slot for worker in self.ready()}
        return slots == set(range(self.number_workers)) == slots | {worker.slot for worker in self.workers}

    def has_rolled(self) -> bool:
        """Whether no worker of an older generation is left to be replaced."""
        return all(worker.generation == self.generation for worker in self.workers if worker.is_holding)

    def _handovers(self) -> dict[str, Any]:
        """Connections on their way, and how that went so far."""
        if self.broker is None:
            return {}
        return {"in_transit": self.broker.in_transit, **asdict(self.broker.figures)}

    def status(self, pid: int, now: float) -> dict[str, Any]:
        """The contract's ``status``."""
        return {
            "master": {
                "pid": pid,
                "state": self.phase.value,
                "uptime_seconds": round(now - self.started_at, 3),
                "version": __version__,
                "generation": self.generation,
                "number_workers": self.number_workers,
                **self._handovers(),
                "listeners": [str(listener.actual) for listener in self.listeners],
                "totals": self.totals.status(worker.row for worker in self.workers),
            },
            "workers": [_worker_status(worker, now) for worker in sorted(self.workers, key=_by_slot)],
        }


def _by_slot(worker: WorkerHandle) -> tuple[int, float]:
    return worker.slot, worker.booted_at


def _worker_status(worker: WorkerHandle, now: float) -> dict[str, Any]:
    row = worker.row
    return {
        "slot": worker.slot,
        "pid": worker.pid,
        "generation": worker.generation,
        "state": worker.state.value,
        "cpus": worker.cpus,
        "connections": row[Cell.CONNECTIONS],
        "active_calls": row[Cell.ACTIVE_CALLS],
        "calls": row[Cell.CALLS],
        "errors": row[Cell.ERRORS],
        "rss_bytes": row[CommonCell.RSS_BYTES],
        "uptime_seconds": round(now - worker.booted_at, 3),
        "adopted": row[Cell.ADOPTED],
        "handed_over": row[Cell.HANDED_OVER],
        "accepted": row[Cell.ACCEPTED],
        "accept_wakeups": row[Cell.ACCEPT_WAKEUPS],
        "dropped_replies": row[Cell.DROPPED_REPLIES],
        "full_seconds": round(worker.full_seconds(now), 3),
        "limits": {name: row[cell] for name, cell in LIMITS.items()},
        "retire_reason": worker.retire_reason if worker.state is WorkerState.RETIRING else "",
    }
