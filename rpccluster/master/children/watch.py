"""The master's look at the scoreboard, a few times a second: who is silent, has grown, or lives on. Runs in the master.

Notes what it sees in the handles; what follows from it is the policy's.
"""

from __future__ import annotations

from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.log import logger
from rpccluster.master.children.child import MEMORY_GRACE_SECONDS, WorkerHandle
from rpccluster.master.children.deaths import EARLY_SECONDS
from rpccluster.master.cluster import Cluster

__all__ = ["KILL_SLACK_SECONDS", "Watch"]

WATCH_SECONDS = 0.1  # between two looks
LONGEST_WATCH_SECONDS = 1.0  # what one look may count as silence: the master itself may have been stopped
KILL_SLACK_SECONDS = 3.0  # beyond graceful_timeout, for a worker to say goodbye


class Watch:
    """Over all workers of one cluster."""

    def __init__(self, cluster: Cluster, now: float) -> None:
        """``now``, here and below, is monotonic seconds."""
        self._cluster = cluster
        self._watched_at = now
        self._limit_told = 0  # of memory, that it is too low

    def turn(self, now: float) -> None:
        """Look, if the last look is old enough."""
        if now - self._watched_at >= WATCH_SECONDS:
            watched, self._watched_at = min(now - self._watched_at, LONGEST_WATCH_SECONDS), now
            self._look(watched, now)

    def _look(self, watched: float, now: float) -> None:
        """``watched`` seconds have passed under our eyes since the last look."""
        cluster, may_move = self._cluster, self._cluster.phase.allows.connections_move
        for worker in cluster.workers:
            worker.watch(watched, now, cluster.options.max_memory)
            self._look_at_memory(worker, now)
            if may_move:
                worker.serve_on(now + cluster.options.graceful_timeout + KILL_SLACK_SECONDS)
            if worker.ready_at is not None and now - worker.ready_at > EARLY_SECONDS:
                cluster.restarts.note_survivor(worker.slot, worker.booted_at)

    def _look_at_memory(self, worker: WorkerHandle, now: float) -> None:
        """Say once that a limit replaces every worker as soon as it may."""
        limit, needed = self._cluster.options.max_memory, worker.row[CommonCell.RSS_BYTES]
        if limit and needed > limit != self._limit_told and worker.is_fresh(now):
            self._limit_told = limit
            logger.warning(
                "max_memory is below what a fresh worker needs (found %d bytes, a worker that has just booted has %d): "
                "each is replaced %g seconds after it is ready",
                limit,
                needed,
                MEMORY_GRACE_SECONDS,
            )
