"""A supervised process as its master sees it: its slot, state, deadlines and heartbeat. Runs in the master.

This is the part common to all kinds; a kind derives from it. The states are a table.
`rpccluster.master.children.roster` starts and reaps the process.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rpccluster.config.cpus import CPUChoice
from rpccluster.errors import IllegalTransition
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import Message, Retire
from rpccluster.ipc.packets import Passing
from rpccluster.ipc.scoreboard import CommonCell, Row
from rpccluster.live_settings import Given
from rpccluster.log import LogFiles
from rpccluster.system import TELL_SIGNAL, Exit, System

__all__ = [
    "HUNG",
    "KILL_SLACK_SECONDS",
    "LATE",
    "MEMORY_GRACE_SECONDS",
    "MOVING_SECONDS",
    "Birth",
    "Child",
    "ChildEvent",
    "ChildState",
    "Edition",
    "Options",
    "Overdue",
    "Source",
]


class ChildState(enum.Enum):
    """The state of a child, as ``status`` shows it. An ended child has no record."""

    BOOTING = "booting"
    READY = "ready"
    RETIRING = "retiring"


class ChildEvent(enum.Enum):
    """An event that changes the state of a child."""

    BOOTED = "booted"
    TOLD_TO_RETIRE = "told to retire"
    CALLED_OFF = "told to retire while it boots"


_TABLE = {
    (ChildState.BOOTING, ChildEvent.BOOTED): ChildState.READY,
    (ChildState.BOOTING, ChildEvent.CALLED_OFF): ChildState.RETIRING,  # if it hears that: others are killed
    (ChildState.READY, ChildEvent.TOLD_TO_RETIRE): ChildState.RETIRING,
    (ChildState.RETIRING, ChildEvent.TOLD_TO_RETIRE): ChildState.RETIRING,  # a stop overtakes a recycling
}


MEMORY_GRACE_SECONDS = 10.0  # after ready, in which `max_memory` replaces no child: it may need that much
FRESH_SECONDS = 1.0  # after ready, in which its work has not made it grow
MOVING_SECONDS = 0.5  # in which a retiring child gives its connections away
KILL_SLACK_SECONDS = 3.0  # beyond graceful_timeout, for a child to end

#: The reason for killing a child without a heartbeat.
HUNG = "timeout"
#: The reason for killing a child that did not get ready in time.
LATE = "ready_timeout"
#: The reasons for which a child is killed, although the master does not want it to end.
_OWN_FAULTS = ("", HUNG, LATE)


class Options(Protocol):
    """The options that every section of processes has; seconds, and bytes of memory. 0 means never, or no limit."""

    @property
    def timeout(self) -> float: ...
    @property
    def graceful_timeout(self) -> float: ...
    @property
    def max_memory(self) -> int: ...
    @property
    def max_lifetime(self) -> float: ...
    @property
    def restart_delay(self) -> float: ...
    @property
    def restart_delay_max(self) -> float: ...
    @property
    def cpu_affinity(self) -> CPUChoice: ...


class Edition(Protocol):
    """What the children of one generation get at their birth."""

    @property
    def generation(self) -> int: ...
    @property
    def options(self) -> Any: ...  # `Options`, and the kind's own
    @property
    def logs(self) -> LogFiles: ...
    @property
    def settings(self) -> Given: ...


class Source(Protocol):
    """A descriptor of the master's that belongs to one child: a channel, or anything else that is watched for it."""

    @property
    def is_closed(self) -> bool: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True, order=True)
class Overdue:
    """The time from which a child should be recycled (monotonic seconds), and the reason."""

    since: float
    reason: str


@dataclass(frozen=True)
class Birth:
    """The data of a child before the fork. ``edition`` is that of its group at that moment."""

    slot: int
    serial: int  # no other child gets it, not even from a later master
    edition: Edition
    row_number: int
    row: Row
    channel: Channel  # the master's end
    cpus: list[int]
    booted_at: float


class Child:
    """One child process. Times are monotonic seconds.

    The attributes of the class say how its kind ends: ``stop_signal`` tells it to, unless it has a farewell;
    ``hears_while_booting`` if it need not be ready for that; ``slack_seconds`` is what it gets beyond the time of the
    option ``stop_option``; an end with status 0 is no fault if it ``may_end``. ``ready_option`` bounds its start.
    """

    stop_signal: int = signal.SIGTERM
    hears_while_booting = False
    slack_seconds = KILL_SLACK_SECONDS
    stop_option = "graceful_timeout"
    ready_option = "ready_timeout"
    may_end = False
    reads_settings = False  # and votes on new ones
    refusal = ""  # why it has refused the last proposal of settings
    reload_signal: int | None = None  # tells it of new settings, if it does not read them

    def __init__(self, birth: Birth) -> None:
        self.slot = birth.slot
        self.serial = birth.serial
        self.edition = birth.edition
        self.generation = birth.edition.generation
        self.row_number = birth.row_number
        self.row = birth.row
        self.channel = birth.channel
        self.cpus = birth.cpus
        self.booted_at = birth.booted_at
        self.pid = 0  # until it is forked
        self.mark = ""  # in the environment of its descendants, if they are killed with it
        self.state = ChildState.BOOTING
        self.ready_at: float | None = None
        self.overdue: Overdue | None = None
        self.retire_reason = ""
        self.retired_at: float | None = None  # when it was first told to
        self.stays = False  # it retires, but must not end before calls that may still come are answered
        self.kill_at: float | None = None  # when retiring has lasted too long
        self.questioned_at: float | None = None  # when the master asked where it hangs
        self.past_limit = ""  # a limit of its kind's that it has passed, for which it is killed at once
        self.kill_reason = ""
        self.exit: Exit | None = None  # how it has ended
        self.last_words = ""  # its own reason why it could not boot
        self.is_service_at_fault = False  # whether the service is that reason
        self.ready_by: float | None = None  # past it, its start has failed
        self.counts_as_ready_at: float | None = None  # it says nothing: it is ready if it lives then
        self._watched_since = birth.booted_at

    # -- what a kind may override

    def sources(self) -> Sequence[Source]:
        """Return what is watched for reading and closed when it has ended: its channels, for most kinds."""
        return [self.channel]

    def read(self, source: Source) -> list[tuple[Passing, list[int]]]:
        """Read ``source``, one of `sources`. Returns the messages on it, each with its descriptors."""
        return list(self.channel.receive())

    def hear_rest(self) -> None:
        """Read what is left when it has ended; its channels are read anyway."""

    def let_go(self) -> None:
        """Close what only the forked process needs, after the fork."""

    def question(self) -> int | None:
        """Return the signal that asks it where it hangs; None if it would not answer."""
        return TELL_SIGNAL

    def stop(self, system: System) -> None:
        """Make it retire that has no farewell."""
        system.kill_group(self.pid, self.stop_signal)

    def farewell(self, order: Retire) -> Message | None:
        """Return the message that makes it retire; None if `stop` does."""
        return None

    def is_moving(self, now: float) -> bool:
        """Return whether it is just giving its connections away."""
        return False

    @property
    def is_at_work(self) -> bool:
        """Whether an end now is that of its work: it counts for no pause."""
        return False

    def where_it_hangs(self) -> str:
        """Return where it hangs, for the log line about its timeout."""
        return "its boot" if self.state is ChildState.BOOTING else "its work"

    # -- what happens to it

    def step(self, event: ChildEvent) -> None:
        """Go to the next state. Raises `IllegalTransition` and changes nothing if there is none."""
        try:
            self.state = _TABLE[self.state, event]
        except KeyError:
            raise IllegalTransition(f"found {event.value!r} in state {self.state.value!r}") from None

    def note_ready(self, now: float) -> None:
        """Note that the child is ready."""
        self.step(ChildEvent.BOOTED)
        self.ready_at = now

    def note_retirement(self, reason: str, now: float, kill_at: float) -> None:
        """Note that it was told to retire, and may take until ``kill_at``; the earliest time counts."""
        is_called_off = self.state is ChildState.BOOTING and self.hears_while_booting
        self.step(ChildEvent.CALLED_OFF if is_called_off else ChildEvent.TOLD_TO_RETIRE)
        self.retired_at = now if self.retired_at is None else self.retired_at
        self.retire_reason = reason
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)

    def want_recycling(self, since: float, reason: str) -> None:
        """Note that it is overdue; the first reason stays."""
        if self.overdue is None:
            self.overdue = Overdue(since, reason)

    def excuse(self, now: float) -> None:
        """Count its silence only from ``now`` on, because the master could not watch it before."""
        self._watched_since = now

    def look_at_memory(self, now: float, most: int) -> None:
        """Note that it is overdue if it has more than ``most`` bytes, unless it has just become ready."""
        if self.row[CommonCell.RSS_BYTES] > most and self._is_ready_for(MEMORY_GRACE_SECONDS, now):
            self.want_recycling(now, "max_memory")

    def close(self) -> None:
        """Close its sources."""
        for source in self.sources():
            source.close()

    # -- what it is

    @property
    def is_killed(self) -> bool:
        """Whether the master has sent it SIGKILL."""
        return bool(self.kill_reason)

    @property
    def is_expected_to_end(self) -> bool:
        """Whether the master wants it to end; killing a child for a fault of its own does not count."""
        return self.state is ChildState.RETIRING or self.kill_reason not in _OWN_FAULTS

    @property
    def is_holding(self) -> bool:
        """Whether it fills its slot, or soon will."""
        return self.state is not ChildState.RETIRING and not self.kill_reason and self.questioned_at is None

    @property
    def is_ready(self) -> bool:
        """Whether it serves, and shall go on."""
        return self.state is ChildState.READY and not self.kill_reason and self.questioned_at is None

    @property
    def watched_since(self) -> float:
        """Since when the master has watched it without a break."""
        return self._watched_since

    @property
    def silent_since(self) -> float:
        """The time of its last heartbeat, or since when the master has watched."""
        since, beat_at = self._watched_since, self.row[CommonCell.HEARTBEAT] / 1e9
        return beat_at if beat_at > since else since

    def is_fresh(self, now: float) -> bool:
        """Return whether it has just become ready, so that it needs all the memory that it takes."""
        return self.is_ready and not self._is_ready_for(FRESH_SECONDS, now)

    def _is_ready_for(self, seconds: float, now: float) -> bool:
        return self.ready_at is not None and now - self.ready_at >= seconds
