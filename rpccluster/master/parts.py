"""Puts the parts of a master together, and owns what the master holds open. Runs in the master.

The parts know only what they get here. `rpccluster.master.supervisor` carries the events of one part to the others.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rpccluster import system
from rpccluster.child.assignment import ChildEntry
from rpccluster.ipc.messages import Listen, Message
from rpccluster.ipc.scoreboard import MOST_DESCRIPTORS
from rpccluster.log import LogFiles, logger
from rpccluster.master.changes.led_listeners import LedListeners
from rpccluster.master.changes.logs import LogReopening
from rpccluster.master.changes.reload import Reloading
from rpccluster.master.changes.saving import Saving
from rpccluster.master.children.actions import Actions
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.control.commands import Commands
from rpccluster.master.control.leader_operations import LeaderOperations
from rpccluster.master.control.metrics_operations import MetricsOperations
from rpccluster.master.control.operations import Operations
from rpccluster.master.control.pool_operations import PoolOperations
from rpccluster.master.control.queue_operations import QueueOperations
from rpccluster.master.control.server import ControlServer
from rpccluster.master.control.settings_operations import SettingsOperations
from rpccluster.master.control.signal_commands import SignalCommands
from rpccluster.master.control.status import Status
from rpccluster.master.control.worker_operations import WorkerOperations
from rpccluster.master.guard import DESCRIPTORS_KEPT_BACK, Guard
from rpccluster.master.handover.broker import Broker
from rpccluster.master.handover.brokers import Brokers
from rpccluster.master.kinds.configured import has_group, make_group
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.kind import Kind
from rpccluster.master.kinds.plugins.groups import outputs_of
from rpccluster.master.kinds.plugins.plugin import Plugin
from rpccluster.master.kinds.rpc import RPC, RPCWorker
from rpccluster.master.kinds.services.family import ServiceFamily
from rpccluster.master.kinds.services.own_service import KINDS, OwnService, ServiceProcess, service_group
from rpccluster.master.loop import Loop
from rpccluster.master.notices import Notices
from rpccluster.master.phases import Event
from rpccluster.master.pieces import Pieces, Work
from rpccluster.master.resources.daemonize import StartReport
from rpccluster.master.resources.listeners import Listener
from rpccluster.master.resources.ownership import Ownership
from rpccluster.master.resources.pidfile import Pidfile
from rpccluster.master.resources.service_listeners import services_of, tell_children
from rpccluster.master.resources.upkeep import Upkeep
from rpccluster.master.resources.warden import Warden
from rpccluster.master.signals import SignalInbox
from rpccluster.master.upgrade import new_master, old_master
from rpccluster.master.upgrade.giving_groups import GivingGroups
from rpccluster.master.upgrade.inherited import LEAD, Inheritance, LeftSettings, Thing, left_settings, things
from rpccluster.master.upgrade.new_master import NewMaster
from rpccluster.master.upgrade.old_master import OldMaster
from rpccluster.master.upgrade.starting import CommandLine, Started, start
from rpccluster.master.upgrade.taking_groups import TakingGroups
from rpccluster.master.watching.code_watch import CodeWatch
from rpccluster.master.watching.config_watch import ConfigWatch
from rpccluster.metrics.layout import LAYOUT
from rpccluster.system import Reserve
from rpccluster.system.files import FileWatch

__all__ = ["Parts", "Start"]


@dataclass
class Start:
    """The way in which a master was started, and the things that it has for itself alone."""

    command: CommandLine
    report: StartReport
    signals: SignalInbox
    inheritance: Inheritance | None = None
    pidfile: Pidfile | None = None
    control: Listener | None = None
    watch: FileWatch = field(default_factory=FileWatch)
    warden: Warden | None = None
    activation: system.Activation = field(default_factory=system.Activation)


class Parts:
    """The parts of one master.

    ``now`` returns monotonic seconds; ``told`` holds the events of the other master of an upgrade, in order.
    """

    def __init__(
        self, operating_system: system.System, cluster: Cluster, rpc: RPC, entry: ChildEntry, start: Start
    ) -> None:
        """``entry`` makes a newly forked process a child."""
        system.make_room_for(MOST_DESCRIPTORS)
        inheritance = start.inheritance
        first_serial = inheritance.first_serial if inheritance else 1
        self.system = operating_system
        self.now = operating_system.monotonic
        self.cluster = cluster
        self.rpc = rpc
        self.start = start
        self.told: deque[new_master.Event | old_master.Event] = deque()
        self.reserve = Reserve(DESCRIPTORS_KEPT_BACK)
        self.notices = Notices(cluster.activation.watchdog_seconds)
        self.guard = Guard(operating_system.monotonic)
        selector, sleep = operating_system.selector(), operating_system.sleep
        self.loop = Loop(self.guard, selector, start.signals.waiting, sleep)
        self.loop.watch(start.signals, start.signals.drain)
        self.control = ControlServer(self.loop, start.control, clock=operating_system.monotonic)
        owned = inheritance.owned() if inheritance else []
        self.ownership = Ownership(start.pidfile, self.control, cluster.listeners, owned, cluster.plugin_listeners)
        self.warden = start.warden or Warden(operating_system, cluster.options, cluster.logs)
        self.roster = Roster(operating_system, self.loop, entry, first_serial, self.warden.groups)
        self._make_groups(first_serial)
        self._make_changes()
        self.pieces = Pieces()
        self.operations = self._make_operations()

    def _make_groups(self, first_serial: int) -> None:
        """Make the kinds, the groups of the configuration, and those between which connections move."""
        operating_system, cluster, rpc, inheritance = self.system, self.cluster, self.rpc, self.start.inheritance
        self.workers = Group("workers", rpc, cluster, is_drained=True, phase=cluster.phase)
        self.workers.after = cluster.options.after
        actions = Actions(operating_system, self.roster, self.reserve)
        self.plugin = Plugin(operating_system.monotonic)
        memories = inheritance.memories if inheritance else {}
        self.services = ServiceFamily(cluster, rpc, self.roster, self.now, memories, lambda: self.operations.methods())
        rpc.counts = cluster.counts
        every_kind: tuple[Kind, ...] = (rpc, self.plugin, *self.services.every_kind())
        self.kinds = {kind.name: kind for kind in every_kind}
        self.groups = Groups(operating_system, self.guard, self.roster, actions, self.kinds, self._configured())
        self.broker = Broker(self.loop, self._connected, first_serial, lambda: cluster.options.restart_delay_max)
        others = {kind: self._make_broker(service, first_serial) for kind, service in self.services.kinds.items()}
        self.brokers = Brokers(self.broker, others)
        tell_children(cluster.plugin_listeners)

    def _make_changes(self) -> None:
        """Make what changes the cluster: reloads, upgrades from both sides, repairs, commands."""
        operating_system, cluster, start = self.system, self.cluster, self.start
        self.saving = Saving(operating_system, self.loop)
        self.reloading = Reloading(
            operating_system, cluster, self.workers, self.groups, self.roster, self._prepared, self.saving
        )
        self.pushing = self.reloading.pushing
        self.giving = GivingGroups(operating_system, self.groups, lambda message: self.new_master.say(message))
        self.new_master = NewMaster(
            operating_system, self.loop, self._start_new_master, self._hear_new_master, self.giving.names
        )
        self.old_master = self._make_old_master(start.inheritance) if start.inheritance else None
        self.taking = TakingGroups(self.groups, self._say_to_old_master)
        self.upkeep = Upkeep(
            operating_system, start.watch, cluster, self.ownership, self._listen_anew, self._is_upgrading
        )
        self.upkeep.watch(self.loop)
        logs = LogReopening(cluster, self.workers, self.groups, self.roster, self.reserve)
        self.code_watch = CodeWatch()
        self.config_watch = ConfigWatch(cluster, self.loop)
        self.led_listeners = LedListeners(cluster, self.workers, self.ownership, self.reloading, self._prepared)
        self.commands = commands = Commands(
            cluster,
            self.workers,
            self.reloading,
            self.new_master,
            logs.reopen,
            self._begin_to_stop,
            self.services.coordinating.drain_seconds,
            self.now,
        )
        self.signal_commands = SignalCommands(operating_system, cluster, commands, self.new_master)
        self._status = Status(cluster, self.workers, self.groups, self.rpc, self.broker)

    def _make_operations(self) -> Operations:
        cluster, services = self.cluster, self.services
        queues = QueueOperations(services.queueing)
        made = Operations(
            self.system,
            cluster,
            self.groups,
            self.commands,
            self.broker,
            self.pieces,
            self._tell_status,
            services.queueing.count,
        )
        made.add(SettingsOperations(cluster, self.commands, made.wait).methods())
        made.add(PoolOperations(services.pooling).methods())
        made.add(queues.methods())
        made.add(LeaderOperations(services.coordinating).methods())
        made.add_readings(queues.readings())
        made.add_readings(MetricsOperations(cluster, self.pieces).readings())
        made.add_readings(WorkerOperations(self.workers, services.asking).readings())
        return made

    @property
    def pid(self) -> int:
        """The pid of this master."""
        return self.system.getpid()

    def logs(self) -> list[LogFiles]:
        """Return the log files that this master writes: the cluster's, and those of plugins."""
        own = [output.files for output in outputs_of(self.groups.all)]
        return [self.cluster.logs, *[files for files in own if files is not None]] if own else [self.cluster.logs]

    def _configured(self) -> Iterator[Group]:
        """Make the groups of the configuration: the workers, if there is a service, services, plugins in its order."""
        configuration, inheritance = self.cluster.configuration, self.start.inheritance
        stopped = inheritance.stopped if inheritance else {}
        if configuration.options.service:
            self.workers.wanted = configuration.options.number_workers
            yield self.workers
        for name in services_of(configuration):
            yield service_group(name, self.cluster, self.services.kinds[KINDS[name]])
        for header, options in configuration.others.items():
            if has_group(options):
                group = make_group(header, options, self.cluster, self.kinds)
                group.stopped = stopped.get(header, group.stopped)
                yield group

    def _make_broker(self, service: OwnService, first_serial: int) -> Broker:
        broker = Broker(self.loop, service.processes, first_serial, holds=True)
        service.on_forgotten = broker.close
        return broker

    def _tell_status(self) -> Work[dict[str, Any]]:
        return self._status.make(self.pid, self.now, self.warden.pid)

    def _connected(self) -> list[RPCWorker]:
        """Return the workers between which connections may move."""
        return [child for child in self.workers.children if isinstance(child, RPCWorker)]

    def _listen_anew(self, listener: Listener) -> None:
        """Have the present workers accept at the new socket of a Unix path, too; restart a plugin whose path it is."""
        if listener in self.cluster.listeners:
            for worker in self.workers.children:
                self.roster.say(worker, Listen(), [listener.socket.fileno()])
        for group in self.groups.all:
            for child in group.children if listener in self.cluster.plugin_listeners.get(group.name, ()) else ():
                if isinstance(child, ServiceProcess) and child.accepts_more:
                    self.roster.say(child, Listen(), [listener.socket.fileno()])
                else:
                    child.want_recycling(self.now(), f"{listener.wanted} was bound again")

    def _hear_new_master(self, event: new_master.Event) -> None:
        """Keep an event of the new master; a takeover goes first.

        All is the new master's from then on, so an order of the old one that came with it must be passed on. A master
        before this one, which may not have read yet that it has left, learns at once who owns everything.
        """
        if isinstance(event, new_master.GoesNext):
            if self.old_master is not None:
                self.old_master.say_why_it_ends("usr2")
        elif isinstance(event, new_master.TakenOver):
            self.told.appendleft(event)
        else:
            self.told.append(event)

    def _is_upgrading(self) -> bool:
        return self.new_master.is_under_way

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """Restore removed paths, and free descriptors, for work that opens files and sockets."""
        with self.reserve.lent():
            self.upkeep.look()
            yield

    def _begin_to_stop(self) -> None:
        if self.old_master is not None:
            self.old_master.say_why_it_ends("term")
        self.notices.tell_stopping()
        self.ownership.close_listeners()

    def _make_old_master(self, inheritance: Inheritance) -> OldMaster:
        self.cluster.has_old_master = True
        self.cluster.note(Event.INHERITED)
        return OldMaster(self.loop, inheritance.channel, inheritance.protocol, self.told.append)

    def _say_to_old_master(self, message: Message) -> None:
        if self.old_master is not None:
            self.old_master.say(message)

    def _start_new_master(self) -> Started | None:
        """Start a new master that inherits what this one holds. Logs and returns None if that fails."""
        try:
            with self._prepared(), left_settings(LeftSettings.of(self.cluster)) as settings:
                return start(self.system, self.start.command, [*self._bequest(), settings])
        except OSError as error:  # there is no room for the settings
            logger.error("Cannot start a new master: %s", error)
            return None

    def _memories(self) -> Iterator[tuple[str, int]]:
        yield from self.services.memories()
        yield LEAD, self.cluster.lead.descriptor
        yield LAYOUT, self.cluster.counts.descriptor

    def _bequest(self) -> list[Thing]:
        cluster = self.cluster
        return things(
            cluster.generation,
            self.roster.next_serial,
            cluster.listeners,
            self.control.listener,
            self.ownership.pidfile,
            cluster.activation,
            cluster.plugin_listeners,
            {group.name: group.stopped for group in self.groups.all if group is not self.workers},
            {kind: descriptor for kind, descriptor in self._memories() if descriptor >= 0},
        )
