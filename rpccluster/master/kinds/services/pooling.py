"""What the dispatcher and the master say to each other about pools and their processes. Runs in the master.

The master is the parent of the task processes: it tells the dispatcher which there are, and kills one whose task is to
end. What is asked about tasks only the dispatcher knows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rpccluster.config.configuration import Configuration
from rpccluster.config.sections.pool import PoolOptions
from rpccluster.ipc.messages import KillTask, Message, Pools
from rpccluster.master.children.child import Child
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.services.asking import Asking, Told
from rpccluster.master.kinds.services.own_service import OwnService
from rpccluster.master.kinds.tasks.task import Task

__all__ = ["Pooling"]

_QUEUES_VARIABLE = "RPCCLUSTER_QUEUES"  # of the environment: the keeper's address
_LEASE_SECONDS = 60.0  # of a queue without a section
CUT_OFF = "a message to it or from it was cut off"  # by the end of a dispatcher: why a process is killed


class Pooling:
    """The conversation with the dispatcher, if there is one."""

    def __init__(self, cluster: Cluster, dispatcher: OwnService, roster: Roster, asking: Asking) -> None:
        self._cluster = cluster
        self._dispatcher = dispatcher
        self._roster = roster
        self._asking = asking
        self.task = Task(self.tell, roster.say)
        self._told_of: Configuration | None = None  # the configuration whose pools it knows

    def _present(self) -> Child | None:
        ready = (child for child in self._dispatcher.processes() if child.ready_at is not None)
        return next(ready, None)

    def tell(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Tell the dispatcher ``message``; without one it is dropped, since a new one is told everything."""
        dispatcher = self._present()
        if dispatcher is not None:
            self._roster.say(dispatcher, message, descriptors)

    def introduce(self, groups: Groups) -> None:
        """Tell a dispatcher that has just become ready of all processes, then of the pools: it has heard all then."""
        try:
            self.task.introduce(groups.all)
        finally:
            self._tell_of_pools()

    def turn(self, groups: Groups) -> None:
        """Tell the dispatcher of the pools if the configuration has changed."""
        if self._told_of is not self._cluster.configuration:
            self._tell_of_pools()

    def _tell_of_pools(self) -> None:
        self._told_of = self._cluster.configuration
        sections = self._told_of.others.items()
        pools = {header: each for header, each in sections if isinstance(each, PoolOptions)}
        told = {header.partition(":")[2]: _of_dispatcher(each) for header, each in pools.items()}
        for name, each in zip(told, pools.values()):
            if each.queue:
                told[name]["source"] = self._source(each)
        self.tell(Pools(told))

    def _source(self, options: PoolOptions) -> list[Any]:
        """Return where the items come from: the fields of `rpccluster.services.dispatcher.draining.Source`."""
        queue: Any = self._cluster.configuration.others.get(f"queue:{options.queue}")
        lease = queue.lease if queue else _LEASE_SECONDS
        return [os.environ.get(_QUEUES_VARIABLE, ""), options.queue, options.targets[0], lease]

    def hear(self, message: Message, groups: Groups) -> None:
        """Take a message of the dispatcher."""
        if isinstance(message, KillTask):
            if message.number:
                self.task.cancel(groups.all, message.serial, message.number)
            else:
                self._kill(groups, message.serial)
            groups.wake()

    def _kill(self, groups: Groups, serial: int) -> None:
        for group in groups.all:
            for child in group.children if group.kind is self.task else ():
                if child.serial == serial and not child.is_killed:
                    self._roster.kill(child, CUT_OFF)

    def ask(self, what: str, params: list[Any], told: Told) -> None:
        """Ask the dispatcher; ``told`` gets the text of an error, or the answer."""
        dispatcher = self._present()
        if dispatcher is None:
            reason = "the dispatcher is not ready" if self._dispatcher.group else "there is no section [pool:NAME]"
            told(f"RuntimeError: {reason}", None)
        else:
            self._asking.ask(dispatcher, what, params, told)

    def note_end(self, child: Child) -> None:
        """A dispatcher that has ended has told all that it had to tell."""


def _of_dispatcher(options: PoolOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("queue_size", "timeout", "soft_timeout")}
