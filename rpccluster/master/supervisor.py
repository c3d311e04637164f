"""The master's loop: collect what happened, decide what to do, do it. Runs in the master; never blocks.

Owns everything the master holds open. What should be done is decided in `rpccluster.master.children.policy`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from rpccluster import system
from rpccluster.child.assignment import ChildEntry
from rpccluster.errors import EXIT_FAULT, EXIT_NO_SERVICE, EXIT_NO_WORKER
from rpccluster.ipc.messages import Accept, Asked, Counted, Listen
from rpccluster.log import logger, say
from rpccluster.master.changes import new_master, old_master
from rpccluster.master.changes.inherited import Inheritance, things
from rpccluster.master.changes.logs import LogReopening
from rpccluster.master.changes.new_master import CommandLine, NewMaster, Stage
from rpccluster.master.changes.old_master import OldMaster
from rpccluster.master.changes.reload import Reloading
from rpccluster.master.children import order, policy
from rpccluster.master.children.actions import Actions
from rpccluster.master.children.child import Child
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import MOST_ROWS, Roster, Said
from rpccluster.master.children.watch import Watch
from rpccluster.master.cluster import Cluster
from rpccluster.master.control.commands import Commands
from rpccluster.master.control.operations import Operations
from rpccluster.master.control.server import ControlServer
from rpccluster.master.control.signal_commands import SignalCommands
from rpccluster.master.control.status import Status
from rpccluster.master.guard import DESCRIPTORS_KEPT_BACK, Guard
from rpccluster.master.handover.broker import Broker
from rpccluster.master.kinds.kind import Booted, Gone, Kind, KindEvent, Passed
from rpccluster.master.kinds.rpc import RPC, RPCWorker
from rpccluster.master.loop import Loop
from rpccluster.master.notices import Notices
from rpccluster.master.phases import Event
from rpccluster.master.resources.daemonize import StartReport
from rpccluster.master.resources.listeners import Listener, apply_options
from rpccluster.master.resources.ownership import Ownership
from rpccluster.master.resources.pidfile import Pidfile
from rpccluster.master.resources.upkeep import Upkeep
from rpccluster.master.signals import SignalInbox
from rpccluster.system import Reserve

__all__ = ["Supervisor"]

TICK_SECONDS = 0.25
MOST_DESCRIPTORS = 3 * MOST_ROWS + 256  # three for each worker there may be; clients, connections in transit


class Supervisor:
    """The master of one cluster, from its first worker to its last."""

    def __init__(
        self,
        operating_system: system.System,
        cluster: Cluster,
        rpc: RPC,
        entry: ChildEntry,
        command: CommandLine,
        report: StartReport,
        signals: SignalInbox,
        pidfile: Pidfile | None,
        control: Listener | None,
        inheritance: Inheritance | None,
    ) -> None:
        self._system = operating_system
        self._command = command
        self._report = report
        system.make_room_for(MOST_DESCRIPTORS)
        self._reserve = Reserve(DESCRIPTORS_KEPT_BACK)
        self._notices = Notices()
        self._guard = Guard(operating_system.monotonic)
        self._signals = signals
        self._loop = Loop(self._guard, waiting=signals.waiting)
        self._control = ControlServer(self._loop, control)
        owned = inheritance.owned() if inheritance else []
        self._ownership = Ownership(pidfile, self._control, cluster.listeners, owned)
        self._loop.watch(signals, signals.drain)
        self._cluster = cluster
        self._rpc = rpc
        self._workers = Group("workers", rpc, cluster, cluster.phase)
        self._groups = [self._workers]
        self._kinds: dict[str, Kind] = {rpc.name: rpc}
        first_serial = inheritance.first_serial if inheritance else 1
        self._roster = Roster(operating_system, self._loop, entry, first_serial)
        self._broker = Broker(self._loop, self._serving, first_serial)
        self._reloading = Reloading(operating_system, cluster, self._workers, self._roster, self._prepared)
        self._new_master = NewMaster(operating_system, self._loop, self._start_new_master, self._heed)
        self._old_master = self._make_old_master(inheritance) if inheritance else None
        self._upkeep = Upkeep(cluster, self._ownership, self._listen_anew, lambda: self._new_master.is_under_way)
        logs = LogReopening(cluster, self._workers, self._roster, self._reserve)
        commands = Commands(cluster, self._workers, self._reloading, self._new_master, logs.reopen, self._begin_to_stop)
        self._signal_commands = SignalCommands(operating_system, cluster, commands, self._new_master)
        status = Status(cluster, self._groups, self._kinds, rpc, self._broker)
        self._operations = Operations(
            operating_system,
            cluster,
            self._workers,
            commands,
            self._broker,
            lambda: status.make(operating_system.getpid(), self._now()),
        )
        self._actions = Actions(operating_system, self._roster, self._reserve)
        self._watch = Watch()
        self._exit_code: int | None = None

    def _serving(self) -> list[RPCWorker]:
        """Those between whom connections may move."""
        return [child for child in self._workers.children if isinstance(child, RPCWorker)]

    def _listen_anew(self, listener: Listener) -> None:
        """A Unix path has a new socket: the workers that there are accept at it, too."""
        for worker in self._workers.children:
            self._roster.say(worker, Listen(), [listener.socket.fileno()])

    def _now(self) -> float:
        """Monotonic seconds."""
        return self._system.monotonic()

    # -- the loop

    def run(self) -> int:
        """Run the cluster until it ends. Returns the exit code."""
        try:
            self._begin()
        except BaseException:  # a fault of ours, or of the system
            self._ownership.give_back()
            raise
        while self._exit_code is None:
            self._turn()
        return self._close(self._exit_code)

    def _begin(self) -> None:
        cluster = self._cluster
        system.set_title(cluster.title)
        if self._old_master is None:
            self._control.serve(self._operations.methods())
        for listener in cluster.listeners:
            logger.info("Listening at: %s (%d)", listener.actual, self._system.getpid())
        self._workers.wanted = cluster.options.number_workers

    def _turn(self) -> None:
        """Whatever fails in one part, under pressure or by a fault of ours, the others go on."""
        attempt = self._guard.attempt
        attempt("do what is due", self._act)
        attempt("complete a reload", self._reloading.note_progress)
        attempt("serve the control socket", self._control.turn)
        attempt("look after paths", self._upkeep.turn, self._now())
        attempt("write the log", self._cluster.logs.flush)
        attempt("answer a command", self._operations.answer_what_is_done)
        attempt("notify systemd", self._notices.turn)
        attempt("wait for what happens", self._loop.turn, TICK_SECONDS)
        attempt("collect what has happened", self._collect)

    # -- collecting

    def _collect(self) -> None:
        attempt = self._guard.attempt
        self._tell_phases()
        self._hear()
        attempt("reap the dead", self._reap)
        for signum in () if self._new_master.is_committing else self._signals.take():
            attempt("obey a signal", self._signal_commands.handle, signum)
        attempt("obey a signal", self._signal_commands.obey_kept)
        now = self._now()
        self._new_master.check_deadline(now)
        may_move = self._cluster.phase.allows.connections_move
        attempt("move connections", lambda: self._broker.turn(now, may_move=may_move))

    def _tell_phases(self) -> None:
        for group in self._groups:
            group.phase = order.phase_of(group, self._groups, self._cluster.phase)

    def _hear(self) -> None:
        for said in self._roster.take_said():
            self._guard.attempt("heed what a child says", self._heed_said, said)

    def _heed_said(self, said: Said) -> None:
        kind = self._kinds[said.group.kind.name]
        self._heed_kind(said.group, kind.hear(said.child, said.message, said.descriptors, self._now()))

    def _reap(self) -> None:
        for group, child, exit_ in self._roster.reap():
            self._hear()
            self._guard.attempt("note the end of a child", self._note_end, group, child, exit_)

    def _note_end(self, group: Group, child: Child, exit_: system.Exit) -> None:
        death = group.note_end(child, exit_, self._now())
        self._heed_kind(group, self._kinds[group.kind.name].note_end(child))
        if group is self._workers and group.failed_at == death.at:
            self._reloading.note_failed_boot(child, death.reason)

    def _heed_kind(self, group: Group, event: KindEvent | None) -> None:
        if event is not None:
            self._HEED_KIND[type(event)](self, group, event)

    def _note_booted(self, group: Group, event: Booted) -> None:
        child = event.child
        child.note_ready(self._now())
        logger.info("%s ready (pid: %d, slot: %d)", group.kind.noun.capitalize(), child.pid, child.slot)
        if group is not self._workers:
            return
        if group.is_candidate(child):
            self._reloading.commit(self._now())
        if self._cluster.phase.allows.children_accept:
            self._roster.say(child, Accept())
        if self._cluster.options.rebalance:
            self._broker.even_out()

    def _note_passed(self, group: Group, event: Passed) -> None:
        self._broker.hear(event.child, event.message, event.descriptors, self._now())

    def _note_gone(self, group: Group, event: Gone) -> None:
        self._broker.note_gone(event.child)

    _HEED_KIND: ClassVar[dict[type, Callable[[Supervisor, Group, Any], None]]] = {
        Booted: _note_booted,
        Passed: _note_passed,
        Gone: _note_gone,
    }

    # -- deciding and performing

    def _act(self) -> None:
        self._tell_phases()
        for group in self._groups:
            self._guard.attempt("do what is due", self._act_on, group)
        course = order.course(self._groups, self._cluster.phase)
        if course is not None:
            self._guard.attempt("do what is due", self._PERFORM[type(course)], self, course)

    def _act_on(self, group: Group) -> None:
        now = self._now()
        group.is_awaited = self._cluster.has_old_master or self._broker.is_moving
        self._watch.turn(group, self._kinds[group.kind.name].look, now)
        for action in policy.decide(group, now).actions:
            self._guard.attempt("do what is due", self._actions.perform, group, action)
        group.has_begun = True

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """For what opens files and sockets: each path leads where it did, and there are descriptors."""
        with self._reserve.lent():
            self._upkeep.look()
            yield

    def _start_new_master(self) -> new_master.Started | None:
        """Start a new master that inherits what this one holds."""
        cluster, ownership = self._cluster, self._ownership
        with self._prepared():
            inherited = things(
                cluster.generation,
                self._roster.next_serial,
                cluster.listeners,
                self._control.listener,
                ownership.pidfile,
            )
            return new_master.start(self._system, self._command, inherited)

    def _note_started(self, course: order.Started) -> None:
        self._cluster.note(Event.BOOTED)
        if self._old_master is not None:
            self._old_master.say_serving()
        else:
            self._go_live()

    def _halt(self, course: order.Halt) -> None:
        group = course.group
        self._exit_code = EXIT_NO_SERVICE if group.is_service_at_fault else EXIT_NO_WORKER
        self._tell(f"no {group.kind.noun} could boot: {group.failure or 'none could be started'}")

    def _finish(self, course: order.Finish) -> None:
        allows = self._cluster.phase.allows
        is_awaited = allows.hands_over and (self._cluster.has_old_master or self._broker.in_transit)
        self._tell_counts()
        if self._exit_code is None and self._new_master.has_told_all and not is_awaited:
            self._exit_code = 0

    _PERFORM: ClassVar[dict[type, Callable[[Supervisor, Any], None]]] = {
        order.Started: _note_started,
        order.Halt: _halt,
        order.Finish: _finish,
    }

    # -- taking over and leaving

    def _go_live(self) -> None:
        if self._cluster.options.daemonize:
            self._guard.attempt("lead stdout and stderr to the log", self._cluster.logs.hold_output)
        self._report.send(0)
        self._notices.tell(f"READY=1\nMAINPID={self._system.getpid()}")

    def _take_over(self, event: old_master.MayTakeOver) -> None:
        """The old master has said `Go`: everything is ours."""
        if not self._cluster.note(Event.RELEASED):
            return
        self._ownership.take_over(self._system.getpid())
        self._control.serve(self._operations.methods())
        apply_options(self._cluster.listeners, self._cluster.options)
        for worker in self._workers.ready():
            self._roster.say(worker, Accept())
        self._go_live()
        assert self._old_master is not None
        self._old_master.say_took_over()

    def _lose_old_master(self, event: old_master.GaveUp) -> None:
        """It gave us up, or died, before it said `Go`: nothing has changed for anyone."""
        logger.error("The old master gave this upgrade up")
        self._exit_code = EXIT_FAULT

    def _leave(self, event: new_master.TakenOver) -> None:
        """The new master serves: give it all our connections, finish the calls that run, and end."""
        self._guard.attempt(
            "give the connections to the new master", self._broker.give_all_to, event.channel, self._now()
        )
        self._tell_counts()
        logger.info("The new master (pid: %d) has taken over", self._new_master.pid)
        self._cluster.note(Event.TAKEN_OVER)
        self._ownership.leave()

    def _take_back(self, event: new_master.Undone) -> None:
        """The new master has failed when it may have begun to take over."""
        self._ownership.sign(self._system.getpid())
        self._notices.tell(f"MAINPID={self._system.getpid()}")

    def _hear_new_master(self, event: new_master.Said) -> None:
        self._broker.hear_new_master(event.message, self._now())

    def _lose_new_master(self, event: new_master.NewMasterEnded) -> None:
        """The new master has ended before us: there is nobody left to give to."""
        self._broker.lose_new_master()
        if self._cluster.note(Event.ABANDONED):
            logger.error("The new master has ended: finishing what runs")

    def _make_old_master(self, inheritance: Inheritance) -> OldMaster:
        self._cluster.has_old_master = True
        self._cluster.note(Event.INHERITED)
        return OldMaster(self._loop, inheritance.channel, inheritance.protocol, self._heed)

    def _hear_old_master(self, event: old_master.Gave) -> None:
        if isinstance(event.message, Counted):
            self._rpc.totals.note_inherited(event.message.counts)
        elif isinstance(event.message, Asked):
            self._signal_commands.do_too(event.message)
        else:
            self._broker.hear_old_master(event.channel, event.message, event.descriptors, self._now())

    def _note_end_of_old_master(self, event: old_master.OldMasterEnded) -> None:
        self._cluster.has_old_master = False
        self._broker.note_old_master_gone()

    def _heed(self, event: new_master.Event | old_master.Event) -> None:
        self._HEED[type(event)](self, event)

    _HEED: ClassVar[dict[type, Callable[[Supervisor, Any], None]]] = {
        old_master.MayTakeOver: _take_over,
        old_master.GaveUp: _lose_old_master,
        old_master.Gave: _hear_old_master,
        old_master.OldMasterEnded: _note_end_of_old_master,
        new_master.TakenOver: _leave,
        new_master.Said: _hear_new_master,
        new_master.Undone: _take_back,
        new_master.NewMasterEnded: _lose_new_master,
    }

    # -- the end

    def _begin_to_stop(self) -> None:
        self._notices.tell("STOPPING=1")
        self._ownership.close_listeners()

    def _tell_counts(self) -> None:
        """To the new master, if there is one: what has been counted here since it was told last."""
        if self._new_master.stage is Stage.DONE:
            counts = self._rpc.totals.untold(worker.row for worker in self._workers.children)
            if any(counts.values()):
                self._new_master.say(Counted(counts))

    def _close(self, exit_code: int) -> int:
        """Give back everything, then answer: whoever asked for a stop may start anew at once."""
        attempt = self._guard.attempt
        for worker in self._workers.children:
            attempt("kill a worker", self._roster.kill, worker, "the master ends")
        attempt("close connections in transit", self._broker.close)
        logger.info("Shutting down: master (pid: %d)", self._system.getpid())
        attempt("give back what the master holds", self._ownership.give_back)
        attempt("answer commands", self._operations.end)
        attempt("close the control socket", self._control.close)
        if self._report.is_awaited and not exit_code:
            self._tell("stopped before it had started")
        self._report.send(exit_code or EXIT_FAULT)  # who still waits for it waits for a start
        self._cluster.logs.drain()
        return exit_code

    def _tell(self, text: str) -> None:
        """Log ``text``, and show it to the person who started this, if the log goes elsewhere."""
        logger.error("%s", text)
        if self._cluster.logs.is_file:
            say(f"rpccluster: {text}")
