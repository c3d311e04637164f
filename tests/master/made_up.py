"""Workers and groups that do not exist: records without processes, for tests of what the master knows and decides."""

from __future__ import annotations

import itertools
from array import array
from collections import deque
from datetime import timezone
from types import SimpleNamespace
from typing import Any

from rpccluster.config import Options, Sources
from rpccluster.config.configuration import Configuration
from rpccluster.ipc.scoreboard import ROW_CELLS, CommonCell, Row
from rpccluster.live_settings import NO_SETTINGS
from rpccluster.log import LogFiles
from rpccluster.master.children.child import Birth, ChildState
from rpccluster.master.children.deaths import Death
from rpccluster.master.children.group import Group
from rpccluster.master.children.schedule import Schedule, Timetable
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.rpc import RPC, RPCWorker
from rpccluster.master.kinds.stalls import Stalls
from rpccluster.master.phases import Phase
from rpccluster.master.pieces import Work
from rpccluster.rate_limit import LogLimiter
from rpccluster.system import Exit

__all__ = ["DAILY", "booting", "cluster", "configuration", "edition", "finished", "group", "ready", "retiring"]

RPC_KIND = RPC()
DAILY = Timetable(Schedule("0 0 * * *", timezone.utc))

_pids = itertools.count(1000)


def edition(generation: int = 1, **options: Any) -> Any:
    """What workers of that generation are born with."""
    made = Options(service="a:b", **{"timeout": 0.0, **options})
    logs = LogFiles("", "")
    return SimpleNamespace(
        generation=generation,
        options=made,
        logs=logs,
        settings=NO_SETTINGS,
        listeners=[],
        staged=None,
        configuration=SimpleNamespace(others={}),
    )


def booting(slot: int = 0, generation: int = 1, booted_at: float = 0.0, **values: Any) -> RPCWorker:
    """A worker that has just been started. Give ``silent_since`` for one that does not beat for ever."""
    row = Row(memoryview(array("Q", [0] * ROW_CELLS)))
    row[CommonCell.HEARTBEAT] = int(values.pop("silent_since", 1e6) * 1e9)
    channel: Any = None
    born_with = values.pop("edition", None) or edition(generation)
    birth = Birth(slot, next(_pids), born_with, slot, row, channel, [0], booted_at)
    timer: Any = SimpleNamespace(fileno=lambda: -1, is_closed=True, close=lambda: None)
    worker = RPCWorker(birth, channel, channel, Stalls(timer, "worker", LogLimiter()))
    worker.pid = next(_pids)
    for name, value in values.items():
        assert hasattr(worker, name), name
        setattr(worker, name, value)
    return worker


def ready(slot: int = 0, generation: int = 1, booted_at: float = 0.0, **values: Any) -> RPCWorker:
    """A worker that serves."""
    values = {"state": ChildState.READY, "ready_at": booted_at, **values}
    return booting(slot, generation, booted_at, **values)


def retiring(slot: int = 0, generation: int = 1, **values: Any) -> RPCWorker:
    """A worker that was told to retire and may take a thousand seconds."""
    values = {"state": ChildState.RETIRING, "ready_at": 0.0, "kill_at": 1000.0, **values}
    return booting(slot, generation, **values)


def configuration(**options: Any) -> Configuration:
    """These options, of a service that nobody imports."""
    return Configuration(Options(service="a:b", **options), {}, Sources())


def cluster(**values: Any) -> Cluster:
    """A running cluster."""
    values = {"generation": 1, "phase": Phase.RUNNING, "listeners": [], "started_at": 1.0, **values}
    return Cluster(configuration(), logs=LogFiles("", ""), **values)


def group(*workers: RPCWorker, **values: Any) -> Group:
    """A running group of these workers, as many as are wanted unless said otherwise; options by their names.

    ``start_at`` says until when slots wait after the deaths in them.
    """
    options = {
        name: values.pop(name) for name in list(values) if name in Options.__dataclass_fields__.keys() - {"after"}
    }
    wanted = options.pop("number_workers", len({worker.slot for worker in workers}))
    section = values.pop("section", None) or edition(values.pop("generation", 1), **options)
    staged = values.pop("staged_generation", None)
    section.staged = None if staged is None else edition(staged)
    start_at = values.pop("start_at", {})
    values = {"phase": Phase.RUNNING, "has_begun": True, "name": "workers", **values}
    made = Group(kind=RPC_KIND, section=section, children=list(workers), wanted=wanted, **values)
    for slot, at in start_at.items():
        delay = made.options.restart_delay
        made.deaths[slot] = deque([Death(Exit(1, 0, None), at - delay, None, at - delay / 2)])
    return made


def finished(work: Work[Any]) -> tuple[Any, list[int]]:
    """What a work has made, and the rows of each of its steps."""
    steps: list[int] = []
    while True:
        try:
            steps.append(next(work))
        except StopIteration as end:
            return end.value, steps
