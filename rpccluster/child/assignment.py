"""What a child gets at its birth: the master makes it before the fork, the child uses it after the fork.

The interface between two layers that never import each other. It has a part common to all children and a part of each
kind. Owns nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Generic, NoReturn, TypeVar

from rpccluster.config.sections.cluster import Options
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.scoreboard import Row, Scoreboard
from rpccluster.ledger.layout import Shape
from rpccluster.live_settings import NO_SETTINGS, Given
from rpccluster.log import LogFiles
from rpccluster.system.clock import Timer

__all__ = ["Assignment", "ChildEntry", "KindPart", "Load", "PluginPart", "RPCPart", "Run", "TaskPart"]


class KindPart:
    """The part of an assignment that one kind of child needs; a subclass for each kind.

    ``is_marked`` says that descendants are killed with the child, also those outside of its process group.
    """

    is_marked: ClassVar[bool] = False

    def descriptors(self) -> list[int]:
        """Return the descriptors that the child keeps; it closes all others of the master's."""
        return []


@dataclass(frozen=True)
class RPCPart(KindPart):
    """The part of an RPC worker.

    ``connections`` is the channel on which
    connections travel; ``accept_lock`` is a descriptor for lockf(3), -1 for none. The process sets ``stall_timer`` anew
    as long as its threads can run; the master watches it. ``kind`` names the kind of a process that is no worker,
    ``memory`` is the file in memory that outlives it, -1 for none, and ``own`` are options of its service from sections
    of its own. ``proxied`` are the places of the listeners at which proxies connect. ``ledger`` is the file, -1 for
    none, of the ledger of that shape (`rpccluster.ledger`), and ``copies`` the channel for copies of sockets.
    ``metrics`` is the file of the counters, -1 if there is none: it counts in it, or reads it.
    """

    connections: Channel
    listeners: list[socket.socket]
    accept_lock: int
    stall_timer: Timer
    kind: str = ""
    memory: int = -1
    own: Any = None
    proxied: Sequence[int] = ()
    ledger: int = -1
    ledger_shape: Shape | None = None
    copies: Channel | None = None
    metrics: int = -1

    def descriptors(self) -> list[int]:
        listeners = [listener.fileno() for listener in self.listeners]
        kept = (self.accept_lock, self.memory, self.ledger, self.metrics)
        files = [descriptor for descriptor in kept if descriptor >= 0]
        channels = [channel.fileno() for channel in (self.connections, self.copies) if channel is not None]
        return [*channels, *listeners, self.stall_timer.fileno(), *files]


@dataclass(frozen=True)
class PluginPart(KindPart):
    """The part of a plugin.

    ``name`` is the plugin's own, without ``plugin:``. Each of ``listeners`` has a name in ``listener_names``.
    ``output`` is the descriptor that becomes stdout and stderr. ``notify`` is the address at which the master takes a
    command's notices (sd_notify(3)): a path, or ``@name`` for an abstract one; empty for a function.
    """

    is_marked: ClassVar[bool] = True

    name: str
    listeners: list[socket.socket]
    listener_names: list[str]
    output: int
    notify: str = ""

    def descriptors(self) -> list[int]:
        return [*(listener.fileno() for listener in self.listeners), self.output]


@dataclass(frozen=True)
class TaskPart(KindPart):
    """The part of a task process.

    ``name`` is that of the pool, without ``pool:``. Tasks come through ``socket``; ``tickets`` is the read end of their
    pipe (`rpccluster.tasks.wire`). ``timer`` wakes the master, which watches it.
    """

    is_marked: ClassVar[bool] = True

    name: str
    socket: socket.socket
    tickets: int
    timer: Timer

    def descriptors(self) -> list[int]:
        return [self.socket.fileno(), self.tickets, self.timer.fileno()]


Part = TypeVar("Part", bound=KindPart, covariant=True)


@dataclass(frozen=True)
class Assignment(Generic[Part]):
    """Everything that one child needs; ``part`` is its kind's own part.

    ``name`` stands in the child's title, such as "worker 3". ``options`` are those of its group. ``cpus`` None means
    unpinned. No other child gets the same ``serial``, not even from a later master. ``mark`` goes to the environment of
    its descendants, to tell whose they are; empty if they may outlive it. ``settings`` are the service's.
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
    mark: str = ""
    settings: Given = NO_SETTINGS

    @property
    def title(self) -> str:
        """The process title; the contract fixes its form."""
        return f"rpccluster: {self.name} [{self.options.proc_name}]"

    @property
    def row(self) -> Row:
        """This child's row of the scoreboard."""
        return self.scoreboard.row(self.row_number)

    def descriptors(self) -> list[int]:
        """Return all descriptors of the master's that the child keeps."""
        return [self.channel.fileno(), *self.logs.descriptors(), *self.part.descriptors()]


#: Runs a prepared and loaded child. Returns the exit code of its process.
Run = Callable[[], int]
#: Loads a kind's code in a child that still has the master's rights, and returns what runs it.
Load = Callable[[Assignment], Run]
#: Makes a child of a newly forked process, and never returns. The master is given one.
ChildEntry = Callable[[Assignment], NoReturn]
