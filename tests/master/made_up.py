"""Workers that do not exist: handles without processes, for tests of what the master knows and decides."""

from __future__ import annotations

import itertools
from array import array
from typing import Any

from rpccluster.config import Options, Sources
from rpccluster.config.configuration import Configuration
from rpccluster.ipc.scoreboard import ROW_CELLS, Row
from rpccluster.log import LogFiles
from rpccluster.master.children.child import WorkerHandle, WorkerState
from rpccluster.master.children.policy import Situation
from rpccluster.master.cluster import Cluster
from rpccluster.master.phases import Phase

__all__ = ["booting", "cluster", "configuration", "ready", "retiring", "situation"]

_pids = itertools.count(1000)


def booting(slot: int = 0, generation: int = 1, booted_at: float = 0.0, **values: Any) -> WorkerHandle:
    """A worker that has just been started."""
    row = Row(memoryview(array("Q", [0] * ROW_CELLS)))
    channel: Any = None
    worker = WorkerHandle(
        slot=slot,
        pid=next(_pids),
        generation=generation,
        row_number=slot,
        row=row,
        serial=next(_pids),
        channel=channel,
        connections=channel,
        far_end=channel,
        cpus=[0],
        booted_at=booted_at,
    )
    for name, value in values.items():
        assert hasattr(worker, name), name
        setattr(worker, name, value)
    return worker


def ready(slot: int = 0, generation: int = 1, booted_at: float = 0.0, **values: Any) -> WorkerHandle:
    """A worker that serves."""
    values = {"state": WorkerState.READY, "ready_at": booted_at, **values}
    return booting(slot, generation, booted_at, **values)


def retiring(slot: int = 0, generation: int = 1, **values: Any) -> WorkerHandle:
    """A worker that was told to retire and may take a thousand seconds."""
    values = {"state": WorkerState.RETIRING, "ready_at": 0.0, "kill_at": 1000.0, **values}
    return booting(slot, generation, **values)


def configuration(**options: Any) -> Configuration:
    """These options, of a service that nobody imports."""
    return Configuration(Options(service="a:b", **options), {}, Sources())


def cluster(*workers: WorkerHandle, **values: Any) -> Cluster:
    """A running cluster of these workers, as many as are wanted unless said otherwise."""
    values = {"generation": 1, "number_workers": len(workers), "phase": Phase.RUNNING, "listeners": [], **values}
    return Cluster(configuration(), logs=LogFiles("", ""), workers=list(workers), started_at=1.0, **values)


def situation(*workers: WorkerHandle, **values: Any) -> Situation:
    """A running cluster of these workers, as many as are wanted unless said otherwise; options by their names."""
    options = {name: values.pop(name) for name in list(values) if name in Options.__dataclass_fields__}
    number_workers = options.pop("number_workers", len({worker.slot for worker in workers}))
    values = {"phase": Phase.RUNNING, "generation": 1, **values}
    return Situation(
        workers=list(workers), options=Options(service="a:b", **options), number_workers=number_workers, **values
    )
