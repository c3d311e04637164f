"""The command of each signal, when it is obeyed, and by which of the two masters of an upgrade. Runs in the master.

HUP, USR2 and WINCH wait for the end of the start; HUP and USR2 also wait for an upgrade, and USR2 for a reload's first
worker. Only the last waiting signal is obeyed. A leaving master passes its signals on to the new master.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from rpccluster.ipc.messages import Asked
from rpccluster.log import escaped, logger
from rpccluster.master.cluster import Cluster
from rpccluster.master.control.commands import Commands
from rpccluster.master.upgrade.new_master import NewMaster
from rpccluster.system import System

__all__ = ["COMMANDS", "SignalCommands"]

_FOR_BOTH_MASTERS = (signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)  # in an upgrade, once the old one is leaving
_TOLD_LATER = (signal.SIGUSR1, signal.SIGWINCH)  # to a booting new master; `scale` passes itself on, a stop ends it


class SignalCommands:
    """Obeys the signals to one master."""

    def __init__(self, system: System, cluster: Cluster, commands: Commands, new_master: NewMaster) -> None:
        self._system = system
        self._cluster = cluster
        self._commands = commands
        self._new_master = new_master
        self._kept: int | None = None
        self._passed_on: list[Asked] = []  # by the old master, and not obeyed yet

    def handle(self, signum: int) -> None:
        """Obey the signal; CHLD only wakes the loop, which looks for ended children in each turn."""
        command, name = COMMANDS.get(signum), signal.Signals(signum).name[3:].lower()
        if command is None or (signum == signal.SIGWINCH and self._system.has_terminal()):  # its size has changed
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
        """Return what the signal has to wait for; empty if nothing. A reload overtakes another."""
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
        """Obey what is kept once it need not wait, here or in the new master; called in every turn."""
        if not self._new_master.is_committing:
            passed_on, self._passed_on = self._passed_on, []
            for asked in passed_on:
                self._obey(asked)
        signum = self._kept
        if signum is not None and not self._must_wait(signum):
            self._kept = None
            self.handle(signum)

    def do_too(self, asked: Asked) -> None:
        """Obey what the leaving old master passes on; like a signal, it waits between `Go` and `TookOver`."""
        if self._new_master.is_committing:
            self._passed_on.append(asked)
        else:
            self._obey(asked)

    def _obey(self, asked: Asked) -> None:
        signum = getattr(signal, f"SIG{asked.what.upper()}", None)
        if asked.what == "scale":
            self._commands.scale(asked.number)
        elif signum in COMMANDS:
            self.handle(signum)
        else:
            logger.error("Cannot obey what the old master passed on: %s is unknown", escaped(asked.what))


def _stop_at_once(commands: Commands) -> None:
    commands.stop(is_quick=True)


#: The command of each signal; CHLD has none.
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
