"""USR2: the new master of an upgrade, as the old one sees it: started, heard, told to take over, or given up.

Owns the channel to it, and the course of the upgrade as a table; `rpccluster.master.takeover` handles its events. Runs
in the old master.

    old master                                    new master (`old_master` is its side)
    forks, resets signals, execs the same
    command line with the `inherited` list
                                                  reads the configuration, boots its workers, and
                                                  sends them nothing, so that none accepts
                                   <- Serving     every worker is ready
    Go ->                                         writes its pid, answers the control socket,
                                                  tells its workers Accept
                                   <- TookOver
    closes its copies of listeners, control
    socket and pidfile, and unlinks nothing;
    retires its workers, passes on their          gives the connections to its workers, and
    connections and late replies, and ends        answers the calls that died with old workers

Both must agree. The new master touches nothing of the old one's before `Go`: if the old one ends before that, the new
one ends, too. The old master gives nothing away before `TookOver`: if the new one ends before that, or takes too long,
the old one writes its own pid again and goes on. One worker that cannot boot ends the new master. Between `Go` and
`TookOver` the workers of both accept.

The old master may read `TookOver` together with the end of the new one. A new master that was told to stop, or that
lets a third one take over, says so (`Asked`) before, and then the old one ends, too: the stop was meant for the
cluster, and the third master has everything. If the third one fails, the new one takes its word back. Without that
word the new one has crashed, and the old one, which has given nothing away yet, goes on.

The two may be of different versions. `Serving` carries the new one's protocol. The old master ends a new one that could
not understand its messages, so an impossible downgrade is refused before anything has moved.

The old master's plugins go on until the new one asks for each, after `TookOver`: `taking_groups` and `giving_groups`.

Signals and commands that come to the old master between `Go` and `TookOver` wait. Afterwards it passes them on,
together with those that it has obeyed since the upgrade began.
"""

from __future__ import annotations

import enum
import os
import signal
from collections.abc import Callable, Sequence
from typing import NamedTuple, Union

from rpccluster.errors import IllegalTransition
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import OLDEST_PROTOCOL, Asked, Go, GroupsReplaced, Message, Serving, TookOver
from rpccluster.log import logger
from rpccluster.master.loop import Loop
from rpccluster.master.upgrade.starting import Started
from rpccluster.system import System

__all__ = ["TAKEN_BACK", "GoesNext", "NewMaster", "NewMasterEnded", "Said", "Stage", "TakenOver", "Undone"]

COMMIT_SECONDS = 10.0  # from `Go` to `TookOver`; a new master that takes longer is given up
TAKEN_BACK = "cont"  # `Asked` with it: the master that has said why it would end goes on
_UNDER_WAY = "an upgrade is under way"


class Stage(enum.Enum):
    """The stage of an upgrade, as the old master sees it."""

    NONE = "none"
    BOOTING = "booting"  # the new master starts its workers
    COMMITTING = "committing"  # it was told to take over, and has not confirmed that
    DONE = "done"  # the new master owns everything


class Step(enum.Enum):
    """A step from one stage of an upgrade to the next."""

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


class GoesNext(NamedTuple):
    """The new master is about to be told to take over. Told at once, since this one may die behind `Go`."""


class TakenOver(NamedTuple):
    """The new master owns everything, and will ask for the processes of ``groups``."""

    channel: Channel
    groups: Sequence[str] = ()


class Said(NamedTuple):
    """The new master has sent a message after it had taken over."""

    message: Message


class Undone(NamedTuple):
    """The new master has failed after it may have begun to take over."""


class NewMasterEnded(NamedTuple):
    """The new master has taken over, and has ended before this one."""


Event = Union[GoesNext, TakenOver, Said, Undone, NewMasterEnded]


class NewMaster:
    """The upgrade under way, if any. ``failure`` says why the last one failed; it is empty if that went well."""

    def __init__(
        self,
        system: System,
        loop: Loop,
        start: Callable[[], Started | None],
        tell: Callable[[Event], None],
        groups: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """``start`` starts a new master, or returns None; ``tell`` gets each event.

        ``groups`` returns the names of the plugins' groups, for `Go`.
        """
        self._groups = groups
        self._system = system
        self._loop = loop
        self._start = start
        self._tell = tell
        self._started: Started | None = None
        self.stage = Stage.NONE
        self.failure = ""
        self._to_pass_on: list[Asked] = []  # once it has taken over: what this one has obeyed meanwhile
        self.pid = 0  # of the new master, once it has taken over
        self.is_replacing = False  # it has taken over, and replaces plugins

    @property
    def is_under_way(self) -> bool:
        """Whether a new master was started and has not taken over yet."""
        return self.stage in (Stage.BOOTING, Stage.COMMITTING)

    @property
    def is_complete(self) -> bool:
        """Whether the upgrade has failed, or the new master serves with all its plugins, as far as they get ready."""
        return not self.is_under_way and not self.is_replacing

    @property
    def is_committing(self) -> bool:
        """Whether the new master may have taken over already, so that commands must wait."""
        return self.stage is Stage.COMMITTING

    def refusal(self) -> str:
        """Return why this master refuses commands now; empty if it does not."""
        if self.is_committing:
            return "an upgrade is just being completed: ask again"
        if self.stage is Stage.DONE:
            return f"the new master (pid: {self.pid}) has taken over: ask that one"
        return ""

    def _step(self, step: Step) -> None:
        try:
            self.stage = _TABLE[self.stage, step]
        except KeyError:
            raise IllegalTransition(f"found {step.value!r} in stage {self.stage.value!r}") from None

    def refuse(self, reason: str) -> None:
        """Log that an upgrade is refused; one under way goes on."""
        reason = _UNDER_WAY if self.is_under_way else reason
        logger.error("Upgrade refused: %s", reason)
        if not self.is_under_way:
            self.failure = reason

    def begin(self) -> None:
        """Start a new master, unless an upgrade is refused."""
        reason = "a master that is pid 1 would take its whole container with it" if self._system.getpid() == 1 else ""
        if self.stage is not Stage.NONE or reason:
            self.refuse(reason or self.refusal())
            return
        self._to_pass_on.clear()
        self._started = self._start()
        if self._started is None:
            self.failure = "cannot start a process"
            return
        self._step(Step.BEGUN)
        logger.info("Booting new master with pid: %d", self._started.pid)
        try:
            self._loop.watch(self._started.channel, self._hear)
        except OSError as error:
            self.give_up(f"cannot watch it: {error}")

    def _hear(self) -> None:
        assert self._started is not None
        channel, took_over = self._started.channel, None
        said: list[Message] = []
        for message, descriptors in channel.receive():
            for descriptor in descriptors:
                os.close(descriptor)
            if isinstance(message, Serving):
                self._let_take_over(message)
            elif isinstance(message, TookOver):
                took_over = message
            else:
                said.append(message)
        why = [message.what for message in said if isinstance(message, Asked)]
        has_crashed = channel.is_closed and (not why or why[-1] == TAKEN_BACK)
        if self.is_committing and took_over is not None and not has_crashed:
            self._commit(channel, took_over)
        for message in said if self.stage is Stage.DONE else ():
            self._take(message)
        if channel.is_closed:
            self._note_end(channel)

    def _take(self, message: Message) -> None:
        if isinstance(message, GroupsReplaced):
            self.is_replacing = False
            waiting = "; ".join(f"{name} is waiting: {why}" for name, why in message.failures)
            self.failure = f"the new master serves, but {waiting}" if waiting else ""
        elif not isinstance(message, Asked):  # which only says why it ends
            self._tell(Said(message))

    def _let_take_over(self, serving: Serving) -> None:
        assert self._started is not None
        if serving.protocol < OLDEST_PROTOCOL:
            found = f"the new master speaks protocol {serving.protocol}, expected {OLDEST_PROTOCOL} or later"
            self.give_up(f"{found}: its version is too old to take over from this one")
            return
        self._step(Step.SERVING)
        self._started.give_up_at = self._system.monotonic() + COMMIT_SECONDS
        self._tell(GoesNext())
        self._started.channel.send(Go(tuple(self._groups())))

    def _commit(self, channel: Channel, took_over: TookOver) -> None:
        assert self._started is not None
        self._step(Step.TOOK_OVER)
        self.pid, self.failure = self._started.pid, ""
        self.is_replacing = bool(took_over.groups)
        self._tell(TakenOver(channel, took_over.groups))
        for asked in self._to_pass_on:
            self.pass_on(asked)

    def _note_end(self, channel: Channel) -> None:
        """Note that the new master has ended."""
        if self.stage is Stage.DONE:
            self._loop.unwatch(channel)
            if self.is_replacing:
                self.is_replacing, self.failure = False, "the new master has ended"
            self._tell(NewMasterEnded())
        elif self.stage is Stage.COMMITTING:
            self._fail("the new master ended before it had taken over")
        elif self.stage is Stage.BOOTING:
            self._fail("the new master could not start; its own log lines say why")

    def pass_on(self, asked: Asked) -> None:
        """Pass a signal or a command on to the new master, now or once it has taken over."""
        if self.is_under_way:
            self._to_pass_on.append(asked)
        elif self.stage is Stage.DONE and self._started is not None and not self._started.channel.is_closed:
            logger.info("Passing on to the new master (pid: %d): %s", self.pid, asked.what)
            self.say(asked)

    def say(self, message: Message) -> None:
        """Send ``message`` to the new master, after it has taken over."""
        if self._started is not None and not self._started.channel.is_closed:
            self._started.channel.send(message)
            self._loop.mind_writing(self._started.channel)

    @property
    def has_told_all(self) -> bool:
        """Whether no message to the new master waits for room."""
        return self._started is None or not self._started.channel.has_unsent

    @property
    def wake_at(self) -> float:
        """When `check_deadline` must be called (monotonic seconds); infinity if never."""
        return self._started.give_up_at if self._started is not None and self.is_under_way else float("inf")

    def check_deadline(self, now: float) -> None:
        """Give up a new master that takes too long."""
        if self._started is not None and self.is_under_way and now >= self._started.give_up_at:
            self.give_up("the new master took too long")

    def give_up(self, reason: str) -> None:
        """Kill a new master that has not taken over, since it holds the pidfile's lock, too."""
        if self._started is not None and self.is_under_way:
            self._system.kill(self._started.pid, signal.SIGKILL)
            self._fail(reason)

    def _fail(self, reason: str) -> None:
        assert self._started is not None
        self._loop.unwatch(self._started.channel)
        self._started.channel.close()
        had_begun, self._started, self.failure = self.is_committing, None, reason
        self._step(Step.FAILED)
        logger.error("Upgrade failed, nothing has changed: %s", reason)
        if had_begun:
            self._tell(Undone())
