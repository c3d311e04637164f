"""Which command each signal is, when it is obeyed, and by which of the two masters of an upgrade. Runs in the master.

HUP, USR2 and WINCH begin something, so they wait: for the start; HUP and USR2 also for an upgrade, USR2 for a reload's
first worker. Of the signals that wait only the last is obeyed. A master that leaves passes on to the new one what it is
asked.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from rpccluster.ipc.messages import Asked
from rpccluster.log import escaped, logger
from rpccluster.master.changes.new_master import NewMaster
from rpccluster.master.cluster import Cluster
from rpccluster.master.control.commands import Commands
from rpccluster.system import System

__all__ = ["COMMANDS", "SignalCommands"]

_FOR_BOTH_MASTERS = (signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)  # of an upgrade, when one of them leaves
_TOLD_LATER = (signal.SIGUSR1, signal.SIGWINCH)  # to a new master that boots; a stop ends it, scaling tells it itself


class SignalCommands:
    """The commands to one master that come as signals."""

    def __init__(self, system: System, cluster: Cluster, commands: Commands, new_master: NewMaster) -> None:
        self._system = system
        self._cluster = cluster
        self._commands = commands
        self._new_master = new_master
        self._kept: int | None = None

    def handle(self, signum: int) -> None:
        """Do what the signal asks for; CHLD only wakes the loop, which always looks for the dead."""
        command, name = COMMANDS.get(signum), signal.Signals(signum).name[3:].lower()
        if command is None or (signum == signal.SIGWINCH and self._system.has_terminal()):  # whose size has changed
            return
        reason = self._must_wait(signum)
        if reason:
            logger.info("Keeping signal: %s, until %s is done", name, reason)
            self._kept = signum
            return
        logger.info("Handling signal: %s", name)
        is_leaving = self._cluster.phase.allows.hands_over
        if is_leaving or signum in _TOLD_LATER:
            self._new_master.pass_on(Asked(name))
        if not is_leaving or signum in _FOR_BOTH_MASTERS:
            command(self._commands)

    def _must_wait(self, signum: int) -> str:
        """What a signal that begins something has to wait for; empty if for nothing. A reload overtakes another."""
        if signum not in (signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH):
            return ""
        if self._cluster.phase.allows.is_starting:
            return "the start"
        if signum == signal.SIGWINCH:
            return ""
        if self._new_master.is_under_way:
            return "the upgrade"
        return "the reload" if signum == signal.SIGUSR2 and self._commands.reloading.is_staged else ""

    def obey_kept(self) -> None:
        """Called every turn: do what the last signal that had to wait asks for, here or in the new master."""
        signum = self._kept
        if signum is not None and not self._must_wait(signum):
            self._kept = None
            self.handle(signum)

    def do_too(self, asked: Asked) -> None:
        """Do what was asked of the old master, which leaves."""
        signum = getattr(signal, f"SIG{asked.what.upper()}", None)
        if asked.what == "scale":
            self._commands.scale(asked.number)
        elif signum in COMMANDS:
            self.handle(signum)
        else:
            logger.error("The old master passed on what this version does not know: %s", escaped(asked.what))


def _stop_at_once(commands: Commands) -> None:
    commands.stop(is_quick=True)


#: What each signal asks for; CHLD asks for nothing.
COMMANDS: dict[int, Callable[[Commands], None]] = {
    signal.SIGTERM: Commands.stop,
    signal.SIGINT: _stop_at_once,
    signal.SIGQUIT: _stop_at_once,
    signal.SIGHUP: Commands.reload,
    signal.SIGTTIN: Commands.add_worker,
    signal.SIGTTOU: Commands.remove_worker,
    signal.SIGUSR1: lambda commands: commands.reopen_logs(),
    signal.SIGUSR2: Commands.upgrade,
    signal.SIGWINCH: Commands.drain,
}
