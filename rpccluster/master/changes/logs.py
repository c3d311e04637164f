"""USR1: reopens the log files, for the master and its workers, and those of plugins. Runs in the master."""

from __future__ import annotations

from collections.abc import Iterable

from rpccluster.ipc.messages import ReopenLogs
from rpccluster.log import LogFiles, logger
from rpccluster.master.children.child import Child
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.plugins.groups import outputs_of
from rpccluster.system import Reserve

__all__ = ["LogReopening"]


class LogReopening:
    """Reopens the logs of one cluster."""

    def __init__(self, cluster: Cluster, workers: Group, groups: Groups, roster: Roster, reserve: Reserve) -> None:
        self._cluster = cluster
        self._workers = workers
        self._groups = groups
        self._roster = roster
        self._reserve = reserve

    def reopen(self) -> None:
        """Reopen the files and send them to the workers; a reload's first worker may have files of its own.

        A plugin's file is the master's alone.
        """
        cluster, staged, rest = self._cluster, self._cluster.staged, list(self._workers.children)
        if staged is not None and staged.logs is not cluster.logs:
            self._reopen(staged.logs, [worker for worker in rest if self._workers.is_candidate(worker)])
            rest = [worker for worker in rest if not self._workers.is_candidate(worker)]
        self._reopen(cluster.logs, rest)
        for output in outputs_of(self._groups.all):
            try:
                with self._reserve.lent():
                    output.reopen()
            except OSError as error:
                logger.error("Cannot reopen the log of a plugin: %s", error)

    def _reopen(self, logs: LogFiles, workers: Iterable[Child]) -> None:
        try:
            with self._reserve.lent():
                descriptors = logs.reopen()
        except OSError as error:
            logger.error("Cannot reopen the log: %s", error)
            return
        for worker in workers:
            self._roster.say(worker, ReopenLogs(), descriptors)
