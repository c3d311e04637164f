"""What a worker is born with: made by the master before the fork, used by the worker after it.

The interface between two layers that never import each other. Owns nothing.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Callable

from rpccluster.config.sections.cluster import Options
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.scoreboard import Row, Scoreboard
from rpccluster.log import LogFiles

__all__ = ["Assignment", "WorkerEntry"]


@dataclass(frozen=True)
class Assignment:
    """All that one worker needs.

    ``cpus`` None means unpinned; ``accept_lock`` is a descriptor for lockf(3); ``call_limit`` is max_requests
    with this worker's jitter, 0 for none; ``serial`` is never given to another worker, nor by a later master;
    ``connections`` is the channel on which connections travel.
    """

    slot: int
    generation: int
    options: Options
    cpus: list[int] | None
    call_limit: int
    row_number: int
    scoreboard: Scoreboard
    serial: int
    channel: Channel
    connections: Channel
    listeners: list[socket.socket]
    accept_lock: int
    master_pid: int
    logs: LogFiles

    @property
    def title(self) -> str:
        """The process title; the contract fixes its form."""
        return f"rpccluster: worker {self.slot} [{self.options.proc_name}]"

    @property
    def row(self) -> Row:
        """This worker's row of the scoreboard."""
        return self.scoreboard.row(self.row_number)


#: Runs a worker in the process it is called in; returns the exit code. Handed to the master by the cli.
WorkerEntry = Callable[[Assignment], int]
