"""What a child is born with: made by the master before the fork, used by the child after it.

The interface between two layers that never import each other. One part is every child's; what a kind alone needs is in
its own part. Owns nothing.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Callable, Generic, NoReturn, TypeVar

from rpccluster.config.sections.cluster import Options
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.scoreboard import Row, Scoreboard
from rpccluster.log import LogFiles

__all__ = ["Assignment", "ChildEntry", "KindPart", "Load", "RPCPart", "Run"]


class KindPart:
    """What a kind of child is born with beside the rest; a subclass for each kind."""

    def descriptors(self) -> list[int]:
        """Those that it keeps; all others of the master's are closed in the child."""
        return []


@dataclass(frozen=True)
class RPCPart(KindPart):
    """An RPC worker's own part.

    ``call_limit`` is max_requests with this worker's jitter, 0 for none; ``connections`` is the channel on which
    connections travel; ``accept_lock`` is a descriptor for lockf(3).
    """

    call_limit: int
    connections: Channel
    listeners: list[socket.socket]
    accept_lock: int

    def descriptors(self) -> list[int]:
        return [self.connections.fileno(), *(listener.fileno() for listener in self.listeners), self.accept_lock]


Part = TypeVar("Part", bound=KindPart, covariant=True)


@dataclass(frozen=True)
class Assignment(Generic[Part]):
    """All that one child needs. The first part is every child's, ``part`` its kind's own.

    ``name`` stands in its title, such as "worker 3". ``options`` are those of its group. ``cpus`` None means unpinned.
    ``serial`` is never given to another child, nor by a later master.
    """

    kind: str
    name: str
    slot: int
    generation: int
    options: Options
    cpus: list[int] | None
    row_number: int
    scoreboard: Scoreboard
    serial: int
    channel: Channel
    master_pid: int
    logs: LogFiles
    part: Part

    @property
    def title(self) -> str:
        """The process title; the contract fixes its form."""
        return f"rpccluster: {self.name} [{self.options.proc_name}]"

    @property
    def row(self) -> Row:
        """This child's row of the scoreboard."""
        return self.scoreboard.row(self.row_number)

    def descriptors(self) -> list[int]:
        """All that the child keeps of the master's."""
        return [self.channel.fileno(), *self.logs.descriptors(), *self.part.descriptors()]


#: Runs a child that is prepared and loaded. Returns the exit code of its process.
Run = Callable[[], int]
#: Loads a kind's code in a child that still has the master's rights, and returns what runs it.
Load = Callable[[Assignment], Run]
#: Makes a child of a process that has just been forked; never returns. Handed to the master.
ChildEntry = Callable[[Assignment], NoReturn]
