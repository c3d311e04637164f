"""The services of the package itself that one master may run, and how it speaks with each. Runs in the master."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Callable

from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.kind import Kind
from rpccluster.master.kinds.rpc import RPC
from rpccluster.master.kinds.services.asking import Asking
from rpccluster.master.kinds.services.coordinating import Coordinating, CoordinatorService
from rpccluster.master.kinds.services.own_service import KINDS, Conversation, OwnService
from rpccluster.master.kinds.services.pooling import Pooling
from rpccluster.master.kinds.services.queueing import Queueing
from rpccluster.master.kinds.services.web import Showing, WebService

__all__ = ["ServiceFamily"]


class ServiceFamily:
    """All of them, by their kinds; each is made, whether the configuration has its section or not."""

    def __init__(
        self,
        cluster: Cluster,
        rpc: RPC,
        roster: Roster,
        now: Callable[[], float],
        inherited: Mapping[str, int],
        methods: Callable[[], Mapping[str, Any]],
    ) -> None:
        """``inherited`` are the memories of the master before this one; ``methods`` answer what the page asks."""
        self.kinds = {kind: OwnService(kind, rpc.own_code) for kind in KINDS.values()}
        self.kinds["coordinator"] = CoordinatorService(rpc.own_code, cluster)
        self.kinds["web"] = WebService(rpc.own_code, cluster.counts)
        for service in self.kinds.values():
            service.inherit(inherited)
        self.asking = Asking(roster, now)
        self.pooling = Pooling(cluster, self.kinds["dispatcher"], roster, self.asking)
        self.queueing = Queueing(cluster, self.kinds["keeper"], roster, self.asking)
        began_at = time.time() - now() + cluster.started_at
        self.coordinating = Coordinating(cluster, self.kinds["coordinator"], roster, now, began_at)
        self.conversations: dict[str, Conversation] = {
            "dispatcher": self.pooling,
            "keeper": self.queueing,
            "coordinator": self.coordinating,
            "web": Showing(cluster, self.kinds["web"], roster, methods),
        }

    def every_kind(self) -> Iterator[Kind]:
        """Yield the kinds of their processes, and the one of the processes that run tasks."""
        yield from self.kinds.values()
        yield self.pooling.task

    def memories(self) -> Iterator[tuple[str, int]]:
        """Yield what a master after this one inherits, by kind: a descriptor, or -1."""
        yield from ((kind, service.memory) for kind, service in self.kinds.items())
