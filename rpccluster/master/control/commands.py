"""The commands to a running master, by signal or control socket. Runs in the master.

A command changes what is wanted, or begins a change; the policy and `rpccluster.master.changes` bring it about.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

from rpccluster.config.cpus import MOST_WORKERS
from rpccluster.ipc.messages import Asked
from rpccluster.log import logger
from rpccluster.master.changes.reload import Reloading
from rpccluster.master.children.group import Group
from rpccluster.master.cluster import Cluster
from rpccluster.master.history import Author
from rpccluster.master.phases import Event
from rpccluster.master.upgrade.new_master import NewMaster

__all__ = ["Commands"]

HUP = Author("HUP")  # the kernel tells nobody who has sent it


class Commands:
    """The commands to one master."""

    def __init__(
        self,
        cluster: Cluster,
        workers: Group,
        reloading: Reloading,
        new_master: NewMaster,
        reopen_logs: Callable[[], None],
        on_stop: Callable[[], None],
        drain_seconds: Callable[[], float] = lambda: 0.0,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """``on_stop`` is called once, at the first stop.

        ``drain_seconds`` tells how long clients need to hear that the cluster goes.
        """
        self._cluster = cluster
        self.workers = workers
        self.reloading = reloading
        self.new_master = new_master
        self.reopen_logs = reopen_logs
        self._on_stop = on_stop
        self._drain_seconds = drain_seconds
        self._now = now
        #: When a stop acts that lets clients turn away first (monotonic seconds); infinity if there is none.
        self.wake_at = math.inf

    def stop(self, *, is_quick: bool = False) -> None:
        """Stop the cluster: gracefully within ``graceful_timeout``, or at once.

        One that the registry lists leaves that first, and serves on for ``drain_delay``. A second command acts at once.
        """
        seconds = 0.0 if is_quick or not self._cluster.phase.allows.is_listed else self._drain_seconds()
        if seconds > 0:
            self._cluster.note(Event.DEPART)
            logger.info("Leaving the registry: the stop acts in %g seconds", seconds)
            self._give_up_changes()
            self.wake_at = self._now() + seconds
        else:
            self._stop(is_quick=is_quick)

    def turn(self, now: float) -> None:
        """Stop, if the time of a stop that waits has come."""
        if now >= self.wake_at:
            self._stop()

    def _stop(self, *, is_quick: bool = False) -> None:
        self.wake_at = math.inf
        if self._cluster.note(Event.QUIT if is_quick else Event.STOP):
            self._give_up_changes()
            self._on_stop()

    def _give_up_changes(self) -> None:
        self.new_master.give_up("this master stops")
        self.reloading.give_up("overtaken: the cluster stops")

    def reload(self, *, is_all: bool = True, author: Author = HUP) -> None:
        """Read the configuration again and replace, one by one, all workers or those whose options have changed."""
        if not self._cluster.phase.allows.may_change:
            self.reloading.refuse(f"the cluster is {self._cluster.phase.value}")
        elif self.new_master.is_under_way:
            self.reloading.refuse("the cluster is upgrading")
        else:
            self.reloading.begin(is_all=is_all, author=author)

    def upgrade(self) -> None:
        """Start a new master from the code on disk, which takes over."""
        if self.reloading.is_staged:
            self.new_master.refuse("the cluster is reloading")
        elif not self._cluster.phase.allows.may_change:
            self.new_master.refuse(f"the cluster is {self._cluster.phase.value}")
        else:
            self.new_master.begin()

    def scale(self, number_workers: int) -> None:
        """Want ``number_workers`` workers from now on."""
        self._cluster.note(Event.WANTED)
        self.workers.wanted = number_workers
        self.new_master.pass_on(Asked("scale", number_workers))

    def add_worker(self) -> None:
        """Want one worker more; after a drain, the first one."""
        if not self._has_workers():
            return
        present = self.workers.wanted if self._cluster.phase.allows.wants_children else 0
        self.scale(min(present + 1, MOST_WORKERS))

    def remove_worker(self) -> None:
        """Want one worker fewer, but never less than one."""
        if self._has_workers() and self._cluster.phase.allows.wants_children:
            self.scale(max(1, self.workers.wanted - 1))

    def drain(self) -> None:
        """Retire all workers and keep the master; callers wait in the backlog until workers are wanted again."""
        if self._has_workers() and self._cluster.note(Event.DRAIN):
            self.reloading.give_up("overtaken: the cluster is drained")

    def _has_workers(self) -> bool:
        """Return whether the cluster has a service; without one there is nobody whom these commands mean."""
        has_service = bool(self._cluster.options.service)
        if not has_service:
            logger.warning("The cluster has no service, so it has no workers")
        return has_service
