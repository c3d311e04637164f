"""USR2 as a course of events: from starting a new master to leaving, and from being one to taking over.

Joins `rpccluster.master.changes.inherited` with the running cluster, on whichever side this master is. Runs in the
master.

The old master has committed itself when it has heard `TookOver` from a new one that lives: until then it has given
nothing away, and goes on if the new one fails. The new master has when it has heard `Go`: until then it has touched
nothing that is the old one's.
"""

from __future__ import annotations

import enum
import os
import signal
from collections.abc import Callable

from rpccluster.errors import IllegalTransition
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import OLDEST_PROTOCOL, PROTOCOL, Go, Message, Serving, TookOver
from rpccluster.ipc.packets import Passing
from rpccluster.log import logger
from rpccluster.master.changes.inherited import Upgrade
from rpccluster.master.loop import Loop
from rpccluster.system import System

__all__ = ["Heir", "Stage", "Succession"]

COMMIT_SECONDS = 10.0  # from `Go` to `TookOver`; a new master that takes longer is given up


class Stage(enum.Enum):
    """How far an upgrade has come, as the old master sees it."""

    NONE = "none"
    BOOTING = "booting"  # the new master starts its workers
    COMMITTING = "committing"  # it was told to take over, and has not said that it has
    DONE = "done"  # everything is the new master's


class Step(enum.Enum):
    """What moves an upgrade from stage to stage."""

    BEGUN = "begun"
    SERVING = "serving"
    TOOK_OVER = "took over"
    FAILED = "failed"


_TABLE = {
    (Stage.NONE, Step.BEGUN): Stage.BOOTING,
    (Stage.BOOTING, Step.SERVING): Stage.COMMITTING,
    (Stage.BOOTING, Step.FAILED): Stage.NONE,
    (Stage.COMMITTING, Step.TOOK_OVER): Stage.DONE,
    (Stage.COMMITTING, Step.FAILED): Stage.NONE,
}


class Succession:
    """The upgrade under way, if any. ``outcome`` is None while it runs, "" if it went well, else the reason."""

    def __init__(
        self,
        system: System,
        loop: Loop,
        on_taken_over: Callable[[Channel], None],
        on_message: Callable[[Message], None],
        on_heir_lost: Callable[[], None],
        on_undone: Callable[[], None],
    ) -> None:
        """``on_taken_over`` is given the channel to the new master; ``on_message`` what that says afterwards;
        ``on_heir_lost`` is called if it ends before this one, ``on_undone`` if it failed when it had begun to take
        over."""
        self._system = system
        self._loop = loop
        self._on_taken_over = on_taken_over
        self._on_message = on_message
        self._on_heir_lost = on_heir_lost
        self._on_undone = on_undone
        self._upgrade: Upgrade | None = None
        self.stage = Stage.NONE
        self.outcome: str | None = ""
        self.heir = 0

    @property
    def is_under_way(self) -> bool:
        """Whether a new master has been started and has not taken over yet."""
        return self.stage in (Stage.BOOTING, Stage.COMMITTING)

    @property
    def is_committing(self) -> bool:
        """Whether the new master may have taken over already: what is asked now is for the one that stays."""
        return self.stage is Stage.COMMITTING

    def refusal(self) -> str:
        """Why nothing but a signal can be asked of this master now; empty if anything can."""
        if self.is_committing:
            return "an upgrade is just being completed: ask again"
        if self.stage is Stage.DONE:
            return f"the new master (pid: {self.heir}) has taken over: ask that one"
        return ""

    def _step(self, step: Step) -> None:
        try:
            self.stage = _TABLE[self.stage, step]
        except KeyError:
            raise IllegalTransition(f"found {step.value!r} in stage {self.stage.value!r}") from None

    def begin(self, start: Callable[[], Upgrade | None], is_refused: str) -> None:
        """Start a new master, unless there is a reason not to."""
        reason = "an upgrade is under way" if self.is_under_way else is_refused
        if reason:
            logger.error("Upgrade refused: %s", reason)
            self.outcome = None if self.is_under_way else reason
            return
        self.outcome = None
        self._upgrade = start()
        if self._upgrade is None:
            self.outcome = "no process could be had"
            return
        self._step(Step.BEGUN)
        logger.info("Booting new master with pid: %d", self._upgrade.pid)
        try:
            self._loop.watch(self._upgrade.channel, self._hear)
        except OSError as error:
            self.give_up(f"it cannot be watched: {error}")

    def _hear(self) -> None:
        assert self._upgrade is not None
        channel, has_taken_over = self._upgrade.channel, False
        for message, descriptors in channel.receive():
            for descriptor in descriptors:
                os.close(descriptor)
            if isinstance(message, Serving):
                self._let_take_over(message)
            elif isinstance(message, TookOver):
                has_taken_over = True
            elif self.stage is Stage.DONE:
                self._loop.guard.attempt("heed what the new master says", self._on_message, message)
        if channel.is_closed:
            self._note_end(channel)
        elif has_taken_over and self.stage is Stage.COMMITTING:
            self._commit(channel)

    def _let_take_over(self, serving: Serving) -> None:
        assert self._upgrade is not None
        if serving.protocol < OLDEST_PROTOCOL:
            found = f"the new master speaks protocol {serving.protocol}, expected {OLDEST_PROTOCOL} or later"
            self.give_up(f"{found}: its version is too old to take over from this one")
            return
        self._step(Step.SERVING)
        self._upgrade.give_up_at = self._system.monotonic() + COMMIT_SECONDS
        self._upgrade.channel.send(Go())

    def _commit(self, channel: Channel) -> None:
        assert self._upgrade is not None
        self._step(Step.TOOK_OVER)
        self.heir, self.outcome = self._upgrade.pid, ""
        self._on_taken_over(channel)

    def _note_end(self, channel: Channel) -> None:
        """The new master has ended, or was given up."""
        if self.stage is Stage.DONE:
            self._loop.unwatch(channel)
            self._on_heir_lost()
        elif self.stage is Stage.COMMITTING:
            self._fail("the new master ended before it had taken over")
        elif self.stage is Stage.BOOTING:
            self._fail("the new master could not start; its own log lines say why")

    def tell(self, message: Message) -> None:
        """Say something to the new master that has taken over."""
        if self._upgrade is not None and not self._upgrade.channel.is_closed:
            self._upgrade.channel.send(message)
            self._loop.mind_writing(self._upgrade.channel)

    @property
    def has_told_all(self) -> bool:
        """Whether nothing waits to be sent to the new master."""
        return self._upgrade is None or not self._upgrade.channel.has_unsent

    def check_deadline(self, now: float) -> None:
        """Give up a new master that takes too long."""
        if self._upgrade is not None and self.is_under_way and now > self._upgrade.give_up_at:
            self.give_up("the new master took too long")

    def give_up(self, reason: str) -> None:
        """End the new master, if there is one that has not taken over, at once: it holds the pidfile's lock, too."""
        if self._upgrade is not None and self.is_under_way:
            self._system.kill(self._upgrade.pid, signal.SIGKILL)
            self._fail(reason)

    def _fail(self, reason: str) -> None:
        assert self._upgrade is not None
        self._loop.unwatch(self._upgrade.channel)
        self._upgrade.channel.close()
        had_begun, self._upgrade, self.outcome = self.is_committing, None, reason
        self._step(Step.FAILED)
        logger.error("Upgrade failed, nothing has changed: %s", reason)
        if had_begun:
            self._on_undone()


class Heir:
    """The new master's side: waits for the old one's word."""

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        on_go: Callable[[], None],
        on_lost: Callable[[], None],
        on_message: Callable[[Channel, Passing, list[int]], None],
        on_old_gone: Callable[[], None],
        *,
        protocol: int = 1,
    ) -> None:
        """``on_lost`` is called if the old master ends, or gives up, before it said `Go`; ``on_message`` is given
        what it says after that, ``on_old_gone`` is called when it has ended. ``protocol`` is what it speaks."""
        self._loop = loop
        self._channel = channel
        self._on_go = on_go
        self._on_lost = on_lost
        self._on_message = on_message
        self._on_old_gone = on_old_gone
        self._protocol = protocol
        self._has_gone = False
        loop.watch(channel, self._hear)

    def say_serving(self) -> None:
        """Our workers are ready. An old master of protocol 1 would not understand that one is named."""
        self._channel.send(Serving(os.getpid(), min(PROTOCOL, self._protocol)))

    def _hear(self) -> None:
        channel = self._channel
        for message, descriptors in channel.receive_unopened():
            if isinstance(message, Go):
                self._has_gone = True
                self._on_go()
                if self._protocol > 1:  # else it has left already
                    channel.send(TookOver())
            elif self._has_gone:
                self._loop.guard.attempt("heed the old master", self._on_message, channel, message, descriptors)
        if channel.is_closed:
            self._loop.unwatch(channel)
            channel.close()
            if self._has_gone:
                self._on_old_gone()
            else:
                self._on_lost()
