"""What a person may ask of a running master, by signal or control socket, and what each signal means.

Changes what is wanted; how it comes about is the policy's. Runs in the master.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import ClassVar

from rpccluster.config.cpus import MOST_WORKERS
from rpccluster.ipc.messages import Asked, ReopenLogs
from rpccluster.log import LogFiles, escaped, logger
from rpccluster.master.changes.new_master import NewMaster
from rpccluster.master.changes.reload import Reloading
from rpccluster.master.children.child import Child
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.handover.broker import Broker
from rpccluster.master.phases import Event
from rpccluster.system import Reserve, System

__all__ = ["Commands"]

_FOR_BOTH_MASTERS = (signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)  # of an upgrade, when one of them leaves
_NOTED = (signal.SIGUSR1, signal.SIGWINCH)  # for a new master that boots; a stop ends it, scaling is noted as such


class Commands:
    """The commands to one master."""

    def __init__(
        self,
        system: System,
        cluster: Cluster,
        workers: Group,
        roster: Roster,
        broker: Broker,
        reloading: Reloading,
        new_master: NewMaster,
        on_stop: Callable[[], None],
        reserve: Reserve,
        look: Callable[[], None],
    ) -> None:
        """``look`` brings back what somebody has removed."""
        self._system = system
        self._cluster = cluster
        self._workers = workers
        self._roster = roster
        self.broker = broker
        self.reloading = reloading
        self.new_master = new_master
        self._on_stop = on_stop
        self._reserve = reserve
        self._kept: int | None = None
        self._asked: list[Asked] = []  # since an upgrade began, and done here: for the new master, too
        self._look = look

    def handle_signal(self, signum: int) -> None:
        """Do what the signal asks for; CHLD only wakes the loop, which always looks for the dead."""
        command, name = self._SIGNALS.get(signum), signal.Signals(signum).name[3:].lower()
        if command is None or (signum == signal.SIGWINCH and self._system.has_terminal()):  # whose size has changed
            return
        is_leaving, reason = self._cluster.phase.allows.hands_over, self._must_wait(signum)
        if reason:
            logger.info("Keeping signal: %s, until %s is done", name, reason)
            self._kept = signum
            return
        logger.info("Handling signal: %s", name)
        if is_leaving:
            self._pass_on(Asked(name))
        if not is_leaving or signum in _FOR_BOTH_MASTERS:
            command(self)
        if self.new_master.is_under_way and signum in _NOTED:
            self._asked.append(Asked(name))

    def _must_wait(self, signum: int) -> str:
        """What a signal that begins something has to wait for; empty if for nothing. A reload overtakes another."""
        if signum not in (signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH):
            return ""
        if self._cluster.phase.allows.is_starting:
            return "the start"
        if signum == signal.SIGWINCH:
            return ""
        if self.new_master.is_under_way:
            return "the upgrade"
        return "the reload" if signum == signal.SIGUSR2 and self._cluster.staged is not None else ""

    def obey_kept(self) -> None:
        """Called every turn: do what the last signal that had to wait asks for, here or in the new master."""
        signum = self._kept
        if signum is not None and not self._must_wait(signum):
            self._kept = None
            self.handle_signal(signum)

    def do_too(self, asked: Asked) -> None:
        """Do what was asked of the old master when it was about to leave."""
        if asked.what == "scale":
            self.scale(asked.number)
            return
        signum = getattr(signal, f"SIG{asked.what.upper()}", None)
        if signum in self._SIGNALS:
            self.handle_signal(signum)
        else:
            logger.error("The old master passed on what this version does not know: %s", escaped(asked.what))

    def pass_on_what_was_asked(self) -> None:
        """The new master has taken over: it is to do what was done here since it was started."""
        asked, self._asked = self._asked, []
        for each in asked:
            self._pass_on(each)

    def _pass_on(self, asked: Asked) -> None:
        logger.info("Passing on to the new master (pid: %d): %s", self.new_master.pid, asked.what)
        self.new_master.say(asked)

    def stop(self, *, is_quick: bool = False) -> None:
        """Stop the cluster: gracefully within ``graceful_timeout``, or at once."""
        if not self._cluster.note(Event.QUIT if is_quick else Event.STOP):
            return
        self.new_master.give_up("this master stops")
        self.reloading.give_up("overtaken: the cluster stops")
        self._on_stop()

    def reload(self) -> None:
        """Read the configuration again and replace the workers one by one."""
        cluster, reloading = self._cluster, self.reloading
        if not cluster.phase.allows.may_change or self.new_master.is_under_way:
            reloading.refuse(
                f"the cluster is {'upgrading' if cluster.phase.allows.may_change else cluster.phase.value}"
            )
            return
        candidate = self._workers.candidate()
        with self._reserve.lent():
            self._look()
            reloading.stage(self._system.monotonic())
        if candidate is not None:
            self._roster.kill(candidate, "overtaken by another reload")

    def scale(self, number_workers: int) -> None:
        """Want so many workers from now on."""
        self._cluster.note(Event.WANTED)
        self._workers.wanted = number_workers
        if self.new_master.is_under_way:
            self._asked.append(Asked("scale", number_workers))

    def add_worker(self) -> None:
        """One worker more; after a drain, the first one."""
        present = self._workers.wanted if self._cluster.phase.allows.wants_children else 0
        self.scale(min(present + 1, MOST_WORKERS))

    def remove_worker(self) -> None:
        """One worker fewer, never below one."""
        if self._cluster.phase.allows.wants_children:
            self.scale(max(1, self._workers.wanted - 1))

    def rebalance(self) -> None:
        """Even the connections out among the workers."""
        self.broker.even_out()

    def drain(self) -> None:
        """Retire all workers and keep the master; callers wait in the backlog until workers are wanted again."""
        if self._cluster.note(Event.DRAIN):
            self.reloading.give_up("overtaken: the cluster is drained")

    def reopen_logs(self) -> None:
        """Open the log files anew, here and in the workers; a reload's first one may have others than the rest."""
        cluster, staged, rest = self._cluster, self._cluster.staged, list(self._workers.children)
        if staged is not None and staged.logs is not cluster.logs:
            self._reopen(staged.logs, [worker for worker in rest if self._workers.is_candidate(worker)])
            rest = [worker for worker in rest if not self._workers.is_candidate(worker)]
        self._reopen(cluster.logs, rest)

    def _reopen(self, logs: LogFiles, workers: list[Child]) -> None:
        try:
            with self._reserve.lent():
                descriptors = logs.reopen()
        except OSError as error:
            logger.error("Cannot reopen the log: %s", error)
            return
        for worker in workers:
            self._roster.say(worker, ReopenLogs(), descriptors)

    def upgrade(self) -> None:
        """Let a new master, from the code on disk, take over."""
        cluster = self._cluster
        refused = ""
        if self._system.getpid() == 1:
            refused = "a master that is pid 1 would take its whole container with it"
        elif not cluster.phase.allows.may_change or cluster.staged is not None:
            refused = f"the cluster is {'reloading' if cluster.staged else cluster.phase.value}"
        if not self.new_master.is_under_way:
            self._asked.clear()
        self.new_master.begin(refused)

    _SIGNALS: ClassVar[dict[int, Callable[[Commands], None]]] = {
        signal.SIGTERM: stop,
        signal.SIGINT: lambda self: self.stop(is_quick=True),
        signal.SIGQUIT: lambda self: self.stop(is_quick=True),
        signal.SIGHUP: reload,
        signal.SIGTTIN: add_worker,
        signal.SIGTTOU: remove_worker,
        signal.SIGUSR1: reopen_logs,
        signal.SIGUSR2: upgrade,
        signal.SIGWINCH: drain,
    }
