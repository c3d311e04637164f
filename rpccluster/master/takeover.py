"""Carries out the messages between the two masters of an upgrade. Runs in the old master, and in the new one.

`rpccluster.master.upgrade.new_master` and `rpccluster.master.upgrade.old_master` own the course of an upgrade; here the
other parts of this master follow it. `rpccluster.master.handover` moves the connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from rpccluster.ipc.messages import Accept, Asked, Counted, GroupStopped, StopGroup
from rpccluster.log import logger
from rpccluster.master.parts import Parts
from rpccluster.master.phases import Event
from rpccluster.master.resources.listeners import apply_options
from rpccluster.master.upgrade import new_master, old_master
from rpccluster.master.upgrade.new_master import Stage

__all__ = ["Takeover"]


class Takeover:
    """Both sides of a takeover. ``has_failed`` says that the old master has given this new one up."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.has_failed = False

    def heed(self, event: new_master.Event | old_master.Event) -> None:
        """Handle an event of the other master."""
        self._HEED[type(event)](self, event)

    def go_live(self) -> None:
        """Tell the waiting shell and systemd that this master serves."""
        parts = self._parts
        if parts.cluster.options.daemonize:
            parts.guard.attempt("lead stdout and stderr to the log", parts.cluster.logs.hold_output)
        parts.start.report.send(0)
        parts.notices.tell_ready(parts.pid, parts.cluster.summary, parts.now())

    def tell_counts(self) -> None:
        """Send the new master, if it has taken over, the counts since the last time."""
        parts = self._parts
        if parts.new_master.stage is Stage.DONE:
            counts = parts.rpc.totals.untold(worker.row for worker in parts.workers.children)
            if any(counts.values()):
                parts.new_master.say(Counted(counts))

    def turn(self, now: float) -> None:
        """Replace plugins of the old master by this one's, and stop those that the new master asks for."""
        parts = self._parts
        if parts.old_master is not None:
            parts.taking.turn(now, is_ending=parts.cluster.phase.allows.ends_when_empty)
        parts.giving.turn(now)

    @property
    def wake_at(self) -> float:
        """When `turn` must be called (monotonic seconds); infinity if only an event counts."""
        return min(self._parts.taking.wake_at, self._parts.giving.wake_at)

    @property
    def is_complete(self) -> bool:
        """Whether this master may end: no other one has to be told of plugins, or has some that must end before."""
        parts = self._parts
        is_late = any(parts.now() >= group.stop_by for group in parts.groups.all)
        may_wait = not (is_late or parts.cluster.phase.allows.kills_children)
        return parts.giving.has_ended and parts.new_master.is_complete and not (may_wait and parts.taking.has_theirs)

    # -- in the new master

    def _take_over(self, event: old_master.MayTakeOver) -> None:
        """Take everything over, since the old master has sent `Go`."""
        parts = self._parts
        if not parts.cluster.note(Event.RELEASED):
            return
        parts.ownership.take_over(parts.pid)
        parts.control.serve(parts.operations.methods())
        apply_options(parts.cluster.listeners, parts.cluster.options)
        for worker in parts.workers.ready():
            parts.roster.say(worker, Accept())
        self.go_live()
        assert parts.old_master is not None
        parts.old_master.say_took_over(parts.taking.names())
        parts.taking.begin(event.groups)

    def _lose_old_master(self, event: old_master.GaveUp) -> None:
        """End this new master, since the old one has given it up, or died, before `Go`."""
        logger.error("The old master has given up this upgrade")
        self.has_failed = True

    def _hear_old_master(self, event: old_master.Gave) -> None:
        parts = self._parts
        if isinstance(event.message, Counted):
            parts.rpc.totals.note_inherited(event.message.counts)
        elif isinstance(event.message, Asked):
            parts.signal_commands.do_too(event.message)
        elif isinstance(event.message, GroupStopped):
            parts.taking.note_stopped(event.message.name)
        else:
            parts.brokers.hear_old_master(event.channel, event.message, event.descriptors, parts.now())

    def _note_end_of_old_master(self, event: old_master.OldMasterEnded) -> None:
        self._parts.cluster.has_old_master = False
        self._parts.brokers.note_old_master_gone()
        self._parts.taking.lose_old_master(self._parts.now())

    # -- in the old master

    def _leave(self, event: new_master.TakenOver) -> None:
        """Give the new master all connections, finish the running calls, and end."""
        parts = self._parts
        parts.guard.attempt(
            "give the connections to the new master", parts.brokers.give_all_to, event.channel, parts.now()
        )
        self.tell_counts()
        parts.notices.leave_to(parts.new_master.pid)
        logger.info("The new master (pid: %d) has taken over", parts.new_master.pid)
        parts.cluster.note(Event.TAKEN_OVER)
        parts.groups.tell(parts.cluster.phase)  # now: the new master may have ended as well, and nothing is to start
        parts.ownership.leave()
        parts.giving.begin(event.groups)

    def _take_back(self, event: new_master.Undone) -> None:
        """Own everything again, since the new master has failed in the middle."""
        parts = self._parts
        if parts.old_master is not None:
            parts.old_master.say_why_it_ends(new_master.TAKEN_BACK)
        parts.ownership.sign(parts.pid)
        parts.notices.tell_main(parts.pid)

    def _hear_new_master(self, event: new_master.Said) -> None:
        parts = self._parts
        if isinstance(event.message, StopGroup):
            parts.giving.heed(event.message, parts.cluster.options.graceful_timeout)
        else:
            parts.brokers.hear_new_master(event.message, parts.now())

    def _lose_new_master(self, event: new_master.NewMasterEnded) -> None:
        """Keep the remaining connections, since the new master has ended before this one."""
        self._parts.brokers.lose_new_master()
        self._parts.giving.end()
        if self._parts.cluster.note(Event.ABANDONED):
            logger.error("The new master has ended: this master answers the calls that still run, and ends")

    _HEED: ClassVar[dict[type, Callable[[Takeover, Any], None]]] = {
        old_master.MayTakeOver: _take_over,
        old_master.GaveUp: _lose_old_master,
        old_master.Gave: _hear_old_master,
        old_master.OldMasterEnded: _note_end_of_old_master,
        new_master.TakenOver: _leave,
        new_master.Said: _hear_new_master,
        new_master.Undone: _take_back,
        new_master.NewMasterEnded: _lose_new_master,
    }
