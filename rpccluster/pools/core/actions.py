"""The actions that the core decides on, and its edge performs. Pure; runs where a pool is dispatched."""

from __future__ import annotations

from typing import Any, NamedTuple, Union

from rpccluster.pools.core.process import Process
from rpccluster.pools.core.task import Task

__all__ = ["Action", "Ended", "Kill", "Run", "TakeBack"]


class Run(NamedTuple):
    """Send ``tasks`` to ``process``, each with its ``ticket``, written before it."""

    process: Process
    tasks: list[Task]


class TakeBack(NamedTuple):
    """Read the tickets of ``process`` that it has not taken, and give them to `Core.taken_back`, in any case."""

    process: Process


class Kill(NamedTuple):
    """Have ``process`` killed if it still runs the task with ``number``, which is cancelled."""

    process: Process
    number: int


class Ended(NamedTuple):
    """Tell the submitter that ``task`` has ended: ``kind`` is ``ok`` or that of the failure.

    ``detail`` is what the edge told the core of this end; None if the task was cancelled before it began.
    """

    task: Task
    kind: str
    detail: Any


Action = Union[Run, TakeBack, Kill, Ended]
