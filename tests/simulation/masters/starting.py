"""Starts a made-up master: what it inherits, opens and reads becomes real `Parts` under a real `Supervisor`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rpccluster.config.configuration import Configuration, load
from rpccluster.master.cluster import Cluster
from rpccluster.master.history import History
from rpccluster.master.kinds.rpc import RPC
from rpccluster.master.parts import Parts, Start
from rpccluster.master.phases import Event, Phase
from rpccluster.master.resources.daemonize import StartReport
from rpccluster.master.resources.listeners import Listener, open_control_listener, open_listeners
from rpccluster.master.resources.pidfile import Pidfile
from rpccluster.master.resources.plugin_listeners import open_plugin_listeners
from rpccluster.master.supervisor import Supervisor
from rpccluster.master.upgrade.inherited import Inheritance, leave

from ..plans.plan import OLDER
from ..world.world import World
from .relay import age_environment
from .selector import Watch
from .system import Command

if TYPE_CHECKING:
    from .master import Master

__all__ = ["assemble"]


class ModestRPC(RPC):
    """Raises no limit: that is this process's, by which descriptors are scarce."""

    def _make_room_for_copies(self, connections: int) -> None:
        pass


class WatchedCluster(Cluster):
    """Counts the rows of the table of phases that are met."""

    world: World

    def note(self, event: Event) -> bool:
        before = self.phase
        has_changed = super().note(event)
        self.world.count("phase", f"{before.value}, {event.value}")
        owns_all = before in (Phase.STARTING, Phase.RUNNING, Phase.DRAINED, Phase.DEPARTING)
        if event in (Event.DEPART, Event.STOP, Event.QUIT) and owns_all:
            self.world.must_end = True
        return has_changed


def assemble(master: Master) -> None:
    """Give ``master`` real parts, as its own start or that of an upgrade does. Raises `StartError`."""
    inheritance = None
    if master.inherited is not None:
        leave(master.inherited)
        if master.world.plan.version == OLDER:
            age_environment()
        master.inheritance = inheritance = Inheritance.from_environment()
        master.inherited = None
        assert inheritance is not None
    configuration = load(master.sources)
    command = Command([], "/", begin=master.begin_new_master)
    inbox: Any = master.inbox
    pidfile, control, listeners = _open(master, configuration, inheritance)
    of_others = open_plugin_listeners(configuration, inheritance.plugin_listeners if inheritance else {})
    start = Start(command, StartReport(), inbox, inheritance, pidfile, control, Watch(master.world))
    generation = inheritance.generation + 1 if inheritance else 1
    left = inheritance.settings if inheritance else None
    cluster = WatchedCluster(
        configuration, generation, listeners, master.logs, master.world.now, plugin_listeners=of_others
    )
    cluster.lead = master.world.store.page
    cluster.world = master.world
    path = f"{configuration.options.pidfile}.history"
    cluster.history = replace(left.history, path=path) if left else History(path)
    if left is not None:
        cluster.configuration = configuration.with_settings(left.given.texts)
        cluster.settings_version = left.given.number
    entry: Any = master.bear
    rpc = ModestRPC()
    master.parts = Parts(master.system, cluster, rpc, entry, start)
    master.supervisor = Supervisor(master.parts)
    if not master.world.is_scarce:  # one descriptor will do
        master.parts.reserve._size = 1
    master.supervisor.begin()


def _open(
    master: Master, configuration: Configuration, inheritance: Inheritance | None
) -> tuple[Pidfile, Listener, list[Listener]]:
    options = configuration.options
    if inheritance is not None:
        assert inheritance.pidfile is not None and inheritance.control is not None
        return (
            inheritance.pidfile,
            inheritance.control,
            open_listeners(options, None, inheritance.listeners, configuration.fault),
        )
    pidfile = Pidfile.acquire(options.pidfile, is_single=False)
    pidfile.is_single = True
    pidfile.write(master.pid)
    return pidfile, open_control_listener(options.control_socket), open_listeners(options, None, [])
