"""The master's loop: collect events, decide, perform, sleep until something is due. It never blocks.

Carries the events of one part of the master to the others, and decides nothing itself.
`rpccluster.master.children.policy` decides about children, `rpccluster.master.handover.placement` about connections,
and the tables in `rpccluster.master.phases` about the master's phase. Each part says when time alone will give it
something to do (``wake_at``), so there is no tick: an idle master sleeps. If one part fails, that is logged, and tried
again in a moment; the others go on.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, ClassVar

from rpccluster.errors import EXIT_ESSENTIAL, EXIT_FAULT, EXIT_NO_SERVICE, EXIT_NO_WORKER
from rpccluster.ipc.messages import Accept, Findings, Vote
from rpccluster.log import logger, say
from rpccluster.master.children import order
from rpccluster.master.children.deaths import TOO_OFTEN, TOO_OFTEN_SECONDS, in_short
from rpccluster.master.children.policy import LATE_SECONDS
from rpccluster.master.history import Author
from rpccluster.master.kinds.groups import Died
from rpccluster.master.kinds.kind import Booted, Gone, Passed, Told, Voted
from rpccluster.master.kinds.restarts import restart_reason
from rpccluster.master.kinds.rpc import RPCWorker
from rpccluster.master.kinds.services.own_service import ServiceProcess
from rpccluster.master.parts import Parts
from rpccluster.master.phases import Event
from rpccluster.master.takeover import Takeover

__all__ = ["Supervisor"]

RETRY_SECONDS = 0.25  # until the next try of what has failed, or found no room


class Supervisor:
    """The master of one cluster, from its first worker to its last."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._takeover = Takeover(parts)
        self._guard = parts.guard
        self._cluster = parts.cluster
        self._workers = parts.workers
        self._groups = parts.groups
        self._broker = parts.broker
        self._brokers = parts.brokers
        self._turned_at = parts.now()
        self._ends_with = 0  # the exit code of a stop
        self._fatal: Died | None = None  # the end of an essential process that has failed too often
        self.exit_code: int | None = None  # the master ends with it: call `close`
        self.waits: float | None = 0.0  # seconds that the next turn waits at most; None: until something happens

    # -- the loop

    def run(self) -> int:
        """Run the cluster until it ends. Returns the exit code."""
        try:
            self.begin()
        except BaseException:  # a fault of ours, or of the system
            self._parts.ownership.give_back()
            raise
        while self.exit_code is None:
            self.turn()
        return self.close(self.exit_code)

    def begin(self) -> None:
        """Set the title, become the parent of orphans, serve the control socket, and log the listeners."""
        parts, cluster = self._parts, self._cluster
        parts.system.set_title(cluster.title)
        parts.system.adopt_orphans()
        parts.warden.follow(parts.loop)
        if parts.old_master is None:
            parts.control.serve(parts.operations.methods())
        for listener in cluster.listeners:
            logger.info("Listening at: %s (%d)", listener.actual, parts.pid)
        for header, listeners in cluster.plugin_listeners.items():
            for listener in listeners:
                logger.info("Listening at: %s (%d) for %s", listener.actual, parts.pid, header)

    def turn(self) -> None:
        """Wait until something happens or is due, then do what follows.

        If one part fails, for lack of resources or by a fault of rpccluster, the others go on.
        """
        attempt, parts = self._guard.attempt, self._parts
        attempt("wait for what happens", self._wait)
        attempt("collect what has happened", self._collect)
        phase = self._cluster.phase
        attempt("replace the other master's plugins", self._takeover.turn, parts.now())
        if self._broker.callers_wait:  # and the start of a successor takes its time
            attempt("move connections whose callers wait", self._move)
        attempt("do what is due", self._act)
        attempt("move connections", self._move)
        attempt("complete a reload", parts.reloading.note_progress)
        attempt("end a vote", parts.pushing.turn)
        attempt("wait no longer for an answer", parts.services.asking.turn)
        for kind, conversation in parts.services.conversations.items():
            attempt(f"tell the {kind} what has changed", conversation.turn, self._groups)
        attempt("end a write", parts.saving.turn)
        attempt("show the settings", self._show_settings)
        attempt("serve the control socket", parts.control.turn)
        attempt("look after paths", parts.upkeep.turn, parts.now())
        attempt("look after the warden", parts.warden.turn, parts.now())
        attempt("reload what has changed", self._reload_what_has_changed)
        for logs in parts.logs():
            if logs.is_waiting:
                attempt("write the log", logs.flush)
        attempt("answer a command", parts.operations.answer_what_is_done)
        attempt("notify systemd", self._notify)
        self.waits = RETRY_SECONDS
        attempt("plan the next turn", self._plan, self._cluster.phase is not phase)

    def _plan(self, has_more: bool) -> None:
        """Plan to sleep until an event comes or something is due; not at all if this turn may have more to do."""
        self.waits = 0.0 if has_more else self._seconds()

    def _wait(self) -> None:
        seconds = self.waits
        self._parts.loop.turn(seconds)
        before, self._turned_at = self._turned_at, self._parts.now()
        if seconds is not None and self._turned_at - before > seconds + LATE_SECONDS:
            self._groups.excuse(self._turned_at)

    def _seconds(self) -> float | None:
        """Return the seconds until the first part has something to do; None to wait for an event."""
        parts, now = self._parts, self._parts.now()
        sleepers = (
            self._groups,
            self._brokers,
            parts.control,
            parts.upkeep,
            parts.new_master,
            parts.code_watch,
            parts.config_watch,
            parts.pushing,
            parts.services.asking,
            parts.saving,
            parts.commands,
            parts.pieces,
            parts.led_listeners,
            parts.services.coordinating,
        )
        wake_at = min([each.wake_at for each in (*sleepers, parts.notices, parts.warden, self._takeover)])
        if self._guard.take_failure():  # also of what is due at once
            return RETRY_SECONDS
        if parts.notices.is_waiting or any(logs.is_waiting for logs in parts.logs()):
            wake_at = min(wake_at, now + RETRY_SECONDS)
        return None if wake_at == float("inf") else max(0.0, wake_at - now)

    # -- collecting

    def _collect(self) -> None:
        attempt, parts = self._guard.attempt, self._parts
        while parts.told:
            attempt("heed the other master", self._takeover.heed, parts.told.popleft())
        if self._takeover.has_failed:
            self.exit_code = EXIT_FAULT
        attempt("heed the children", self._heed_children)
        attempt("stop without an essential process", self._stop_without_essential)
        for signum in () if parts.new_master.is_committing else parts.start.signals.take():
            attempt("obey a signal", self._obey, signum)
        attempt("end an upgrade that takes too long", parts.new_master.check_deadline, parts.now())
        attempt("obey a signal", parts.signal_commands.obey_kept)  # last: what it waited for may have just ended

    def _heed_children(self) -> None:
        self._tell_groups()
        for event in self._groups.collect():
            self._guard.attempt("heed a child", self._HEED[type(event)], self, event)

    def _stop_without_essential(self) -> None:
        """Stop if an essential group has failed too often: like a signal, not before an upgrade is decided."""
        if self._fatal is None or self._parts.new_master.is_committing:
            return
        (group, _, death), self._fatal = self._fatal, None
        if self._ends_with or self._cluster.phase.allows.ends_when_empty:
            return  # it stops already, or the new master has that group now
        self._ends_with = EXIT_ESSENTIAL
        told = f"{group.noun} has failed {TOO_OFTEN} times within {TOO_OFTEN_SECONDS:g} seconds"
        self._tell(f"{told} (last: {death.reason}), and it is essential: the cluster stops")
        self._parts.commands.stop()

    def _tell_groups(self) -> None:
        unled = self._parts.led_listeners.turn(self._groups.all, self._parts.now())
        self._groups.tell(self._cluster.phase, self._cluster.options.graceful_timeout, unled)

    def _obey(self, signum: int) -> None:
        if signum == signal.SIGCONT:
            self._groups.excuse(self._parts.now())
        self._parts.signal_commands.handle(signum)

    def _note_booted(self, event: Booted) -> None:
        child = event.child
        if not isinstance(child, RPCWorker):
            return
        if isinstance(child, ServiceProcess):
            if child.is_holding:  # not if it is about to be killed for being slow
                self._parts.roster.say(child, Accept())
                self._parts.services.conversations[child.kind].introduce(self._groups)
            return
        if self._workers.is_candidate(child):  # the commit lets it accept
            self._parts.reloading.note_proved(child)
        elif self._cluster.phase.allows.children_accept and child.is_holding:  # not if it is killed for being slow
            self._parts.roster.say(child, Accept())
        self._parts.code_watch.follow(child.code_files, self._parts.now())
        if self._cluster.options.rebalance:
            self._broker.even_out()

    def _note_passed(self, event: Passed) -> None:
        broker = self._brokers.of(event.child.kind)
        broker.hear(event.child, event.message, event.descriptors, self._parts.now())

    def _note_gone(self, event: Gone) -> None:
        self._brokers.of(event.child.kind).note_gone(event.child, self._parts.now())

    def _note_voted(self, event: Voted) -> None:
        if isinstance(event.message, Vote):
            self._parts.pushing.note_vote(event.child, event.message)
        else:
            self._parts.pushing.note_switched(event.child)

    def _note_told(self, event: Told) -> None:
        if isinstance(event.message, Findings):
            self._parts.services.asking.hear(event.message)
            return
        assert isinstance(event.child, ServiceProcess)
        self._parts.services.conversations[event.child.kind].hear(event.message, self._groups)

    def _note_died(self, event: Died) -> None:
        group = event.group
        for conversation in self._parts.services.conversations.values():
            conversation.note_end(event.child)
        self._parts.services.asking.note_end(event.child)
        self._parts.pushing.note_end(event.child)
        reason = restart_reason(group, event.child, event.death)
        if reason:
            self._cluster.counts.note_restart(group.name, reason)
        if group is self._workers and event.death.is_failed_boot:
            self._parts.reloading.note_failed_boot(event.child, group.failure)
        if group.fails_too_often(event.death.at):
            self._fatal = event

    _HEED: ClassVar[dict[type, Callable[[Supervisor, Any], None]]] = {
        Booted: _note_booted,
        Passed: _note_passed,
        Gone: _note_gone,
        Voted: _note_voted,
        Told: _note_told,
        Died: _note_died,
    }

    # -- deciding and performing

    def _act(self) -> None:
        self._parts.commands.turn(self._parts.now())
        self._tell_groups()
        self._workers.is_awaited = self._cluster.has_old_master or self._broker.is_moving
        self._workers.note_moving(self._parts.now(), is_moving=self._broker.is_moving)
        self._groups.act()
        course = self._groups.course(self._cluster.phase)
        if course is not None:
            self._FOLLOW[type(course)](self, course)

    def _move(self) -> None:
        self._brokers.turn(self._parts.now(), may_move=self._cluster.phase.allows.connections_move)

    def _show_settings(self) -> None:
        version = self._cluster.settings_version
        self._cluster.counts.show_settings({group.name: version for group in self._groups.all})

    def _note_started(self, course: order.Started) -> None:
        self._cluster.note(Event.BOOTED)
        if self._parts.old_master is not None:
            self._parts.old_master.say_serving(self._parts.pid)
        else:
            self._takeover.go_live()

    def _halt(self, course: order.Halt) -> None:
        group = course.group
        self.exit_code = EXIT_NO_SERVICE if group.is_service_at_fault else EXIT_NO_WORKER
        self._tell(f"no {group.noun} could boot: {in_short(group.failure) or 'none could be started'}")

    def _finish(self, course: order.Finish) -> None:
        self._takeover.tell_counts()
        has_more_to_give = self._cluster.has_old_master or self._brokers.in_transit
        if has_more_to_give and self._cluster.phase.allows.hands_over:
            return
        if self.exit_code is None and self._parts.new_master.has_told_all and self._takeover.is_complete:
            self.exit_code = self._ends_with

    _FOLLOW: ClassVar[dict[type, Callable[[Supervisor, Any], None]]] = {
        order.Started: _note_started,
        order.Halt: _halt,
        order.Finish: _finish,
    }

    def _reload_what_has_changed(self) -> None:
        parts, now = self._parts, self._parts.now()
        if parts.code_watch.turn(now):
            logger.info("The code of the service has changed")
            parts.commands.reload(author=Author("reload_code"))
        may_reload = self._cluster.phase.allows.may_change and not parts.new_master.is_under_way
        if parts.config_watch.turn(now, may_reload=may_reload):
            logger.info("The configuration has changed")
            parts.commands.reload(is_all=False, author=Author("reload_on_change"))

    def _notify(self) -> None:
        parts, reloading = self._parts, self._parts.reloading
        if parts.notices.is_concerned(reloading.begun):
            outcome = reloading.fault or self._cluster.summary
            parts.notices.follow_changes(reloading.begun, outcome, parts.now(), is_under_way=reloading.is_under_way)
        parts.notices.turn(parts.now())

    # -- the end

    def close(self, exit_code: int) -> int:
        """Give everything back, then answer, so that a new start may follow a stop at once."""
        attempt, parts = self._guard.attempt, self._parts
        for group in self._groups.all:
            for child in group.children:
                attempt("kill a child", parts.roster.kill, child, "the master ends")
        attempt("kill what children have left", parts.warden.end)
        attempt("close connections in transit", self._brokers.close)
        logger.info("Shutting down: master (pid: %d)", parts.pid)
        attempt("give back what the master holds", parts.ownership.give_back)
        attempt("answer commands", parts.operations.end)
        attempt("close the control socket", parts.control.close)
        attempt("wait no more for a write", parts.saving.close)
        attempt("stop watching the configuration", parts.config_watch.close)
        if parts.start.report.is_awaited and not exit_code:
            self._tell("stopped before it had started")
        parts.start.report.send(exit_code or EXIT_FAULT)  # who still waits for it waits for a start
        attempt("notify systemd", parts.notices.drain)
        for logs in parts.logs():
            logs.drain()
        return exit_code

    def _tell(self, text: str) -> None:
        """Log ``text``, and print it for the user who started this, if the log is a file."""
        logger.error("%s", text)
        if self._cluster.logs.is_file:
            say(f"rpccluster: {text}")
