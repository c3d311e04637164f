"""What the policy wants done to workers, done: started, retired, asked, killed. Runs in the master.

Decides nothing; what it has done shows in the handles before the policy is asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from rpccluster import system
from rpccluster.ipc.messages import Retire as RetireOrder
from rpccluster.ipc.reserve import Reserve
from rpccluster.log import escaped, logger
from rpccluster.master.children import policy
from rpccluster.master.children.child import HUNG, WorkerState
from rpccluster.master.children.deaths import RESTART_DELAY_SECONDS
from rpccluster.master.children.roster import Roster
from rpccluster.master.children.watch import KILL_SLACK_SECONDS
from rpccluster.master.cluster import Cluster

__all__ = ["WorkerActions"]


class WorkerActions:
    """The actions of one master on its workers."""

    def __init__(self, operating_system: system.System, cluster: Cluster, roster: Roster, reserve: Reserve) -> None:
        """``reserve`` lends the descriptors of a new worker's channels."""
        self._system = operating_system
        self._cluster = cluster
        self._roster = roster
        self._reserve = reserve

    def perform(self, action: policy.Action) -> None:
        """Do it."""
        self._PERFORM[type(action)](self, action)

    def _spawn(self, action: policy.Spawn) -> None:
        cluster, staged = self._cluster, self._cluster.staged
        if staged is not None and action.generation == staged.generation:
            options, listeners, logs = staged.configuration.options, staged.listeners, staged.logs
        else:
            options, listeners, logs, staged = cluster.options, cluster.listeners, cluster.logs, None
        with self._reserve.lent():
            worker = self._roster.spawn(action.slot, action.generation, options, listeners, logs)
        if worker is None:
            cluster.spawn_at = self._system.monotonic() + RESTART_DELAY_SECONDS
        elif staged is not None:
            staged.candidate = worker
        if cluster.own_code is not None:
            cluster.own_code.tell_of_changes()

    def _retire(self, action: policy.Retire) -> None:
        worker, now, graceful = action.worker, self._system.monotonic(), self._cluster.options.graceful_timeout
        logger.info("Retiring worker (pid: %d): %s", worker.pid, action.reason)
        worker.note_retirement(action.reason, now, now + graceful + KILL_SLACK_SECONDS)
        is_ending = not self._cluster.phase.allows.connections_move
        worker.stays = is_ending and self._cluster.situation().awaits_connections
        self._roster.say(worker, RetireOrder(graceful, is_ending, worker.stays))

    def _dismiss(self, action: policy.Dismiss) -> None:
        worker, now = action.worker, self._system.monotonic()
        worker.stays = False
        left = max(0.0, (worker.kill_at or now) - KILL_SLACK_SECONDS - now)
        self._roster.say(worker, RetireOrder(left, True))

    def _question(self, action: policy.Question) -> None:
        action.worker.questioned_at = self._system.monotonic()
        self._roster.signal(action.worker, system.TELL_SIGNAL)

    def _kill(self, action: policy.Kill) -> None:
        worker = action.worker
        if action.reason == HUNG:
            logger.critical("WORKER TIMEOUT (pid: %d) in %s", worker.pid, escaped(worker.method_it_hangs_in()))
        elif worker.state is WorkerState.RETIRING:
            logger.warning("Killing worker (pid: %d): %s", worker.pid, action.reason)
        self._roster.kill(worker, action.reason)

    _PERFORM: ClassVar[dict[type, Callable[[WorkerActions, Any], None]]] = {
        policy.Spawn: _spawn,
        policy.Retire: _retire,
        policy.Dismiss: _dismiss,
        policy.Question: _question,
        policy.Kill: _kill,
    }
