"""What the master hears of its workers: what they say of themselves, that they are ready, how they ended.

Runs in the master. What follows from it is decided in `rpccluster.master.children.policy`.
"""

from __future__ import annotations

from collections.abc import Callable

from rpccluster.ipc.messages import Accept, BootFailed, Message, Ready, WantsToRetire
from rpccluster.log import logger
from rpccluster.master.changes.reload import Reloading
from rpccluster.master.children.child import HUNG, WorkerEvent, WorkerHandle
from rpccluster.master.children.deaths import End
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.handover.broker import Broker
from rpccluster.system import Exit

__all__ = ["WorkerNews"]


class WorkerNews:
    """Takes the news down, where it belongs."""

    def __init__(
        self, cluster: Cluster, roster: Roster, broker: Broker, reloading: Reloading, now: Callable[[], float]
    ) -> None:
        """``now`` tells monotonic seconds."""
        self._cluster = cluster
        self._roster = roster
        self._broker = broker
        self._reloading = reloading
        self._now = now

    def hear(self, worker: WorkerHandle, message: Message) -> None:
        """A worker has said something of itself."""
        if isinstance(message, Ready):
            self._note_ready(worker, message)
        elif isinstance(message, BootFailed):
            worker.boot_failure = message
        elif isinstance(message, WantsToRetire):
            logger.info("Worker (pid: %d) wants to retire: %s", worker.pid, message.reason)
            worker.want_recycling(self._now(), message.reason)

    def _note_ready(self, worker: WorkerHandle, message: Ready) -> None:
        cluster = self._cluster
        worker.step(WorkerEvent.BOOTED)
        worker.ready_at, worker.methods = self._now(), message.methods
        logger.info("Worker ready (pid: %d, slot: %d)", worker.pid, worker.slot)
        if cluster.staged is not None and cluster.staged.candidate is worker:
            self._reloading.commit(self._now())
        if cluster.phase.allows.children_accept:
            self._roster.say(worker, Accept())
        if cluster.options.rebalance:
            self._broker.even_out()

    def note_end(self, worker: WorkerHandle, exit_: Exit) -> None:
        """A worker has ended, and all that it said has been heard."""
        cluster = self._cluster
        cluster.totals.note_end(worker.row)
        self._broker.note_gone(worker)
        if worker.is_expected_to_end or cluster.phase.allows.ends_when_empty:
            logger.info("Worker exiting (pid: %d)", worker.pid)
            return
        reason = _reason(worker, exit_)
        what = "could not boot" if worker.ready_at is None else "died"
        logger.error("Worker (pid: %d) %s: %s", worker.pid, what, reason)
        self._note_pause(worker, End(exit_, worker.booted_at, worker.ready_at, self._now()))
        if worker.ready_at is None or cluster.phase.allows.needs_all_children:
            cluster.failure, cluster.failed_at = reason, self._now()
            cluster.is_service_at_fault = worker.boot_failure is not None and worker.boot_failure.stage == "service"
            self._reloading.note_failed_boot(worker, reason)

    def _note_pause(self, worker: WorkerHandle, end: End) -> None:
        slot = self._cluster.restarts.note_end(worker.slot, end)
        pause = slot.start_at() - end.at
        if pause > 0 and end.is_failure:
            told = "Workers die in a loop (slot %d, %d in a row): the next one starts in %g seconds"
            logger.error(told, worker.slot, len(slot.failures()), pause)


def _reason(worker: WorkerHandle, exit_: Exit) -> str:
    if worker.boot_failure is not None:
        return worker.boot_failure.text
    return "it hung" if worker.kill_reason == HUNG else str(exit_)
