"""A supervised process as its master sees it: its place, its state, its deadlines, and how long it has been silent.

What every child has, of whatever kind; a kind adds to it by deriving. Owns no process:
`rpccluster.master.children.roster` starts and reaps. The states are a table. Runs in the master.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Protocol

from rpccluster.config.cpus import CPUChoice
from rpccluster.errors import IllegalTransition
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import Message, Retire
from rpccluster.ipc.packets import Passing
from rpccluster.ipc.scoreboard import CommonCell, Row
from rpccluster.log import LogFiles

__all__ = [
    "HUNG",
    "MEMORY_GRACE_SECONDS",
    "MOVING_SECONDS",
    "Birth",
    "Child",
    "ChildEvent",
    "ChildState",
    "Edition",
    "Options",
    "Overdue",
]


class ChildState(enum.Enum):
    """What ``status`` shows. A child that has ended has no record any more."""

    BOOTING = "booting"
    READY = "ready"
    RETIRING = "retiring"


class ChildEvent(enum.Enum):
    """What moves a child from state to state."""

    BOOTED = "booted"
    TOLD_TO_RETIRE = "told to retire"


_TABLE = {
    (ChildState.BOOTING, ChildEvent.BOOTED): ChildState.READY,
    (ChildState.READY, ChildEvent.TOLD_TO_RETIRE): ChildState.RETIRING,
    (ChildState.RETIRING, ChildEvent.TOLD_TO_RETIRE): ChildState.RETIRING,  # a stop overtakes a recycling
}


MEMORY_GRACE_SECONDS = 10.0  # after it is ready, in which `max_memory` replaces nobody: it may need so much
FRESH_SECONDS = 1.0  # after it is ready, in which it has not grown by what was asked of it
MOVING_SECONDS = 0.5  # in which what a retiring child still has is given to others, unless nobody can take it

#: Why a child that showed no sign of life is killed.
HUNG = "timeout"


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
    """What the children of one generation are born with."""

    @property
    def generation(self) -> int: ...
    @property
    def options(self) -> Any: ...  # `Options`, and its kind's own
    @property
    def logs(self) -> LogFiles: ...


@dataclass(frozen=True, order=True)
class Overdue:
    """Since when a child should be recycled (monotonic seconds), and why."""

    since: float
    reason: str


@dataclass(frozen=True)
class Birth:
    """What is known of a child before it is forked. ``edition`` is what its group is at that moment."""

    slot: int
    serial: int  # never another child's, nor a later master's
    edition: Edition
    row_number: int
    row: Row
    channel: Channel  # the master's end
    cpus: list[int]
    booted_at: float


class Child:
    """One child process. Times are monotonic seconds."""

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
        self.state = ChildState.BOOTING
        self.ready_at: float | None = None
        self.overdue: Overdue | None = None
        self.retire_reason = ""
        self.retired_at: float | None = None  # when it was told to, first
        self.stays = False  # told to retire, but not to end before what may still come has been answered
        self.kill_at: float | None = None  # when retiring has lasted too long
        self.questioned_at: float | None = None  # when it was asked where it hangs
        self.kill_reason = ""
        self.last_words = ""  # why it could not boot, as it said itself
        self.is_service_at_fault = False  # for that
        self._watched_since = birth.booted_at

    # -- what a kind may say otherwise

    def channels(self) -> list[Channel]:
        """The master's ends of its channels: watched for reading, closed when it has ended."""
        return [self.channel]

    def read(self, channel: Channel) -> list[tuple[Passing, list[int]]]:
        """What has come on ``channel``, one of `channels`, each message with its descriptors."""
        return list(channel.receive())

    def farewell(self, order: Retire) -> Message | None:
        """What to send so that it retires; None: it is told by TERM."""
        return None

    def is_moving(self, now: float) -> bool:
        """Whether it retires and gives what it has to others just now."""
        return False

    def where_it_hangs(self) -> str:
        """For the log line about its timeout."""
        return "its boot" if self.state is ChildState.BOOTING else "its work"

    # -- what happens to it

    def step(self, event: ChildEvent) -> None:
        """Go to the next state. Raises `IllegalTransition` and changes nothing if there is none."""
        try:
            self.state = _TABLE[self.state, event]
        except KeyError:
            raise IllegalTransition(f"found {event.value!r} in state {self.state.value!r}") from None

    def note_ready(self, now: float) -> None:
        """It has said that it is."""
        self.step(ChildEvent.BOOTED)
        self.ready_at = now

    def note_retirement(self, reason: str, now: float, kill_at: float) -> None:
        """It was told to retire for ``reason`` and may take until ``kill_at``; told again, until the earlier time."""
        self.step(ChildEvent.TOLD_TO_RETIRE)
        self.retired_at = now if self.retired_at is None else self.retired_at
        self.retire_reason = reason
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)

    def want_recycling(self, since: float, reason: str) -> None:
        """Note that it is overdue; the first reason stays."""
        if self.overdue is None:
            self.overdue = Overdue(since, reason)

    def excuse(self, now: float) -> None:
        """The master itself could not watch it: what silence there was does not count."""
        self._watched_since = now

    def look_at_memory(self, now: float, most: int) -> None:
        """More than ``most`` bytes make it overdue, unless it has just become ready."""
        if self.row[CommonCell.RSS_BYTES] > most and self._is_ready_for(MEMORY_GRACE_SECONDS, now):
            self.want_recycling(now, "max_memory")

    def close(self) -> None:
        """Close the master's ends of its channels."""
        for channel in self.channels():
            channel.close()

    # -- what it is

    @property
    def is_killed(self) -> bool:
        """Whether it was sent SIGKILL."""
        return bool(self.kill_reason)

    @property
    def is_expected_to_end(self) -> bool:
        """Whether its end is the master's own wish; that of one that hangs is not."""
        return self.state is ChildState.RETIRING or self.kill_reason not in ("", HUNG)

    @property
    def is_holding(self) -> bool:
        """Whether it fills its slot, or is about to."""
        return self.state is not ChildState.RETIRING and not self.is_killed and self.questioned_at is None

    @property
    def is_ready(self) -> bool:
        """Whether it serves and is to go on doing so."""
        return self.state is ChildState.READY and self.is_holding

    @property
    def silent_since(self) -> float:
        """Since when it has shown no sign of life, as far as the master has watched."""
        return max(self._watched_since, self.row[CommonCell.HEARTBEAT] / 1e9)

    def is_fresh(self, now: float) -> bool:
        """Whether it has just become ready: what memory it takes it needs."""
        return self.is_ready and not self._is_ready_for(FRESH_SECONDS, now)

    def _is_ready_for(self, seconds: float, now: float) -> bool:
        return self.ready_at is not None and now - self.ready_at >= seconds
