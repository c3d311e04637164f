"""Restores removed files: the paths of Unix sockets, and the pidfile. Runs in the master.

A removed path ends no connection, but no new one can come, and a second start does not see that this cluster runs. So
the master watches these files, and checks them soon after one has changed, when another event has woken it, before a
reload and an upgrade, and every ten seconds, because the kernel reports no move of a folder further above. If the
kernel watches nothing, it checks every second. A new socket of the service is sent to the workers, which accept at it
beside the old one, so no worker and no connection ends for it. A plugin is restarted with the new socket.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rpccluster.address import UnixAddress
from rpccluster.config.accounts import identity_of
from rpccluster.config.sections.cluster import Options
from rpccluster.errors import StartError
from rpccluster.log import logger
from rpccluster.master.cluster import Cluster
from rpccluster.master.loop import Loop
from rpccluster.master.resources.listeners import Listener, bind_again
from rpccluster.master.resources.ownership import Ownership
from rpccluster.master.resources.plugin_listeners import all_of, bind_plugin_again
from rpccluster.system import System
from rpccluster.system.files import FileWatch

__all__ = ["LOOK_SECONDS", "Upkeep"]

LOOK_SECONDS = 1.0  # between two checks, unless the kernel reports a change
SETTLE_SECONDS = 0.5  # between a reported change and the check, so that a process can finish clearing a folder
IDLE_SECONDS = 10.0  # between two checks if the kernel reports changes
RETRY_SECONDS = 3.0  # each try connects to another process that may answer there


class Upkeep:
    """Checks the paths of one master."""

    def __init__(
        self,
        system: System,
        watch: FileWatch,
        cluster: Cluster,
        ownership: Ownership,
        on_bound: Callable[[Listener], None],
        is_changing: Callable[[], bool],
    ) -> None:
        """``on_bound`` gets each listener of the service or of a plugin that has a new socket.

        While ``is_changing``, a new master has copies of all listeners, so none is replaced.
        """
        self._system = system
        self._cluster = cluster
        self._ownership = ownership
        self._on_bound = on_bound
        self._is_changing = is_changing
        self._watch = watch
        self._is_told = False  # whether the kernel reports changes of all paths
        self._changed_at: float | None = None
        self._looked_at = 0.0
        self._failed: dict[str, tuple[str, float]] = {}  # what could not be restored: the reason, and when to try again
        self._earlier = self._failed  # at the check before this one

    def watch(self, loop: Loop) -> None:
        """Let ``loop`` report changes of the files."""
        if self._watch.is_open:
            loop.watch(self._watch, self._note_change)

    def _note_change(self) -> None:
        self._watch.drain()
        if self._changed_at is None:
            self._changed_at = self._system.monotonic()

    def close(self) -> None:
        """Stop watching files."""
        self._watch.close()

    @property
    def wake_at(self) -> float:
        """When to check the paths if nothing happens before (monotonic seconds); infinity if nothing is to be checked.

        A change of the phase and the end of an upgrade are events, so they need no time.
        """
        if not self._may_look or not self._has_paths():
            return float("inf")
        if self._changed_at is not None:
            return self._changed_at + SETTLE_SECONDS
        is_idle = self._is_told and not self._failed
        return self._looked_at + (IDLE_SECONDS if is_idle else LOOK_SECONDS)

    def turn(self, now: float) -> None:
        """Check the paths if a change has settled, or the last check is old enough."""
        if self._changed_at is None:
            is_due = now >= self._looked_at + LOOK_SECONDS
        else:
            is_due = now >= self._changed_at + SETTLE_SECONDS
        if is_due:
            self._looked_at, self._changed_at = now, None
            self.look()

    @property
    def _may_look(self) -> bool:
        return self._cluster.phase.allows.may_change and not self._is_changing()

    def _paths(self) -> list[str]:
        control, pidfile = self._ownership.control.listener, self._ownership.pidfile
        of_plugins = all_of(self._cluster.plugin_listeners)
        listeners = [*self._cluster.listeners, *of_plugins, *([control] if control else [])]
        paths = [each.wanted.path for each in listeners if isinstance(each.wanted, UnixAddress)]
        return paths + ([pidfile.path] if pidfile else [])

    def _has_paths(self) -> bool:
        return self._ownership.pidfile is not None or bool(self._paths())

    def look(self) -> None:
        """Check every path, and restore what is missing."""
        self._is_told = False
        if not self._may_look:
            return
        self._earlier, self._failed = self._failed, {}
        options, configuration = self._cluster.options, self._cluster.configuration
        for listener in self._cluster.listeners:
            self._look_at(listener, partial(_bind_again, listener, options))
        for header, listeners in self._cluster.plugin_listeners.items():
            for listener in listeners:
                self._look_at(listener, partial(bind_plugin_again, listener, configuration, header))
        control = self._ownership.control.listener
        if control is not None and isinstance(control.wanted, UnixAddress) and not control.is_there():
            bind = partial(self._ownership.bind_control_again, is_private=not options.control_socket)
            self._restore(f"the control socket {control.wanted.path}", bind)
        self._look_at_pidfile()
        self._is_told = self._watch.follow(self._paths())

    def _look_at(self, listener: Listener, bind: Callable[[], None]) -> None:
        if not listener.is_there() and self._restore(str(listener.wanted), bind):
            self._on_bound(listener)

    def _look_at_pidfile(self) -> None:
        pidfile, pid = self._ownership.pidfile, self._system.getpid()
        if pidfile is None:
            return
        if not pidfile.is_there():
            self._restore(f"the pidfile {pidfile.path}", partial(pidfile.make_again, pid))
        elif pidfile.is_single and not pidfile.names(pid):
            self._restore(f"the pidfile {pidfile.path}", partial(pidfile.write, pid), "changed")

    def _restore(self, what: str, make: Callable[[], None], happened: str = "removed") -> bool:
        """Restore ``what``. Returns whether that worked; the same reason is logged once."""
        told, try_at = self._earlier.get(what, ("", 0.0))
        if self._system.monotonic() < try_at:
            self._failed[what] = told, try_at
            return False
        try:
            make()
        except (OSError, StartError) as error:
            reason = str(error)
            if reason != told:
                logger.error("Cannot restore %s, which somebody has %s: %s", what, happened, reason)
            self._failed[what] = reason, self._system.monotonic() + RETRY_SECONDS
            return False
        logger.warning("Restored %s, which somebody had %s", what, happened)
        return True


def _bind_again(listener: Listener, options: Options) -> None:
    bind_again(listener, options, identity_of(options.user, options.group))
