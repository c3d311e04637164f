"""What the two masters of an upgrade tell each other, carried out. Runs in the old master, and in the new one.

The course of an upgrade is `rpccluster.master.changes.new_master`'s and `rpccluster.master.changes.old_master`'s; here
the other parts of this master follow it. Connections travel by `rpccluster.master.handover`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from rpccluster.ipc.messages import Accept, Asked, Counted
from rpccluster.log import logger
from rpccluster.master.changes import new_master, old_master
from rpccluster.master.changes.new_master import Stage
from rpccluster.master.parts import Parts
from rpccluster.master.phases import Event
from rpccluster.master.resources.listeners import apply_options

__all__ = ["Takeover"]


class Takeover:
    """Both sides of it. ``has_failed`` says that this is a new master that the old one has given up."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.has_failed = False

    def heed(self, event: new_master.Event | old_master.Event) -> None:
        """Do what follows from what the other master does."""
        self._HEED[type(event)](self, event)

    def go_live(self) -> None:
        """Tell those who wait for it that this master serves."""
        parts = self._parts
        if parts.cluster.options.daemonize:
            parts.guard.attempt("lead stdout and stderr to the log", parts.cluster.logs.hold_output)
        parts.start.report.send(0)
        parts.notices.tell(f"READY=1\nMAINPID={parts.pid}")

    def tell_counts(self) -> None:
        """Tell the new master, if there is one, what has been counted here since it was told last."""
        parts = self._parts
        if parts.new_master.stage is Stage.DONE:
            counts = parts.rpc.totals.untold(worker.row for worker in parts.workers.children)
            if any(counts.values()):
                parts.new_master.say(Counted(counts))

    # -- in the new master

    def _take_over(self, event: old_master.MayTakeOver) -> None:
        """The old master has said `Go`: everything is ours."""
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
        parts.old_master.say_took_over()

    def _lose_old_master(self, event: old_master.GaveUp) -> None:
        """It gave us up, or died, before it said `Go`: nothing has changed for anyone."""
        logger.error("The old master gave this upgrade up")
        self.has_failed = True

    def _hear_old_master(self, event: old_master.Gave) -> None:
        parts = self._parts
        if isinstance(event.message, Counted):
            parts.rpc.totals.note_inherited(event.message.counts)
        elif isinstance(event.message, Asked):
            parts.signal_commands.do_too(event.message)
        else:
            parts.broker.hear_old_master(event.channel, event.message, event.descriptors, parts.now())

    def _note_end_of_old_master(self, event: old_master.OldMasterEnded) -> None:
        self._parts.cluster.has_old_master = False
        self._parts.broker.note_old_master_gone()

    # -- in the old master

    def _leave(self, event: new_master.TakenOver) -> None:
        """The new master serves: give it all our connections, finish the calls that run, and end."""
        parts = self._parts
        parts.guard.attempt(
            "give the connections to the new master", parts.broker.give_all_to, event.channel, parts.now()
        )
        self.tell_counts()
        logger.info("The new master (pid: %d) has taken over", parts.new_master.pid)
        parts.cluster.note(Event.TAKEN_OVER)
        parts.ownership.leave()

    def _take_back(self, event: new_master.Undone) -> None:
        """The new master has failed when it may have begun to take over."""
        self._parts.ownership.sign(self._parts.pid)
        self._parts.notices.tell(f"MAINPID={self._parts.pid}")

    def _hear_new_master(self, event: new_master.Said) -> None:
        self._parts.broker.hear_new_master(event.message, self._parts.now())

    def _lose_new_master(self, event: new_master.NewMasterEnded) -> None:
        """The new master has ended before us: there is nobody left to give to."""
        self._parts.broker.lose_new_master()
        if self._parts.cluster.note(Event.ABANDONED):
            logger.error("The new master has ended: finishing what runs")

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
