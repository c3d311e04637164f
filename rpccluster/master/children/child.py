"""A worker as its master sees it: its place, its state, what it said, and how long it has been silent.

Owns no process: `rpccluster.master.children.roster` starts and reaps. The states are a table.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from rpccluster.errors import IllegalTransition
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import BootFailed
from rpccluster.ipc.scoreboard import Cell, CommonCell, Row, is_full

__all__ = ["HUNG", "MOVING_SECONDS", "Overdue", "WorkerEvent", "WorkerHandle", "WorkerState"]


class WorkerState(enum.Enum):
    """What ``status`` shows. A worker that has ended has no handle any more."""

    BOOTING = "booting"
    READY = "ready"
    RETIRING = "retiring"


class WorkerEvent(enum.Enum):
    """What moves a worker from state to state."""

    BOOTED = "booted"
    TOLD_TO_RETIRE = "told to retire"


_TABLE = {
    (WorkerState.BOOTING, WorkerEvent.BOOTED): WorkerState.READY,
    (WorkerState.READY, WorkerEvent.TOLD_TO_RETIRE): WorkerState.RETIRING,
    (WorkerState.RETIRING, WorkerEvent.TOLD_TO_RETIRE): WorkerState.RETIRING,  # a stop overtakes a recycling
}


MEMORY_GRACE_SECONDS = 10.0  # after it is ready, in which `max_memory` replaces nobody: it may need so much
FRESH_SECONDS = 1.0  # after it is ready, in which it has not grown by what was asked of it
MOVING_SECONDS = 0.5  # in which a retiring worker's connections have moved, unless nobody can take them

#: Why a worker that showed no sign of life is killed.
HUNG = "timeout"


@dataclass(frozen=True, order=True)
class Overdue:
    """Since when a worker should be recycled (monotonic seconds), and why."""

    since: float
    reason: str


@dataclass(eq=False)
class WorkerHandle:
    """One worker process. Times are monotonic seconds."""

    slot: int
    pid: int
    generation: int
    row_number: int
    row: Row
    serial: int
    channel: Channel
    connections: Channel  # on which connections travel
    far_end: Channel  # the worker's end of that: what it has not read can be read back
    cpus: list[int]
    booted_at: float
    state: WorkerState = WorkerState.BOOTING
    ready_at: float | None = None
    methods: list[str] = field(default_factory=list)
    overdue: Overdue | None = None
    retire_reason: str = ""
    retired_at: float | None = None  # when it was told to, first
    stays: bool = False  # told to retire, but not to end before connections that may still come have been answered
    kill_at: float | None = None  # when retiring has lasted too long
    questioned_at: float | None = None  # when it was asked where it hangs
    kill_reason: str = ""
    boot_failure: BootFailed | None = None
    given: int = 0  # connections that were sent to it, and not taken back or refused
    silent_seconds: float = 0.0  # for so long, watched by the master, its heartbeat has not moved
    _beat_seen: int = -1

    def step(self, event: WorkerEvent) -> None:
        """Go to the next state. Raises `IllegalTransition` and changes nothing if there is none."""
        try:
            self.state = _TABLE[self.state, event]
        except KeyError:
            raise IllegalTransition(f"found {event.value!r} in state {self.state.value!r}") from None

    def note_retirement(self, reason: str, now: float, kill_at: float) -> None:
        """It was told to retire for ``reason`` and may take until ``kill_at``; told again, until the earlier time."""
        self.step(WorkerEvent.TOLD_TO_RETIRE)
        self.retired_at = now if self.retired_at is None else self.retired_at
        self.retire_reason = reason
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)

    def serve_on(self, kill_at: float) -> None:
        """If it retires with connections that nobody can take yet, it may take until ``kill_at`` at least."""
        if self.kill_at is not None and self.connection_count:
            self.kill_at = max(self.kill_at, kill_at)

    @property
    def is_killed(self) -> bool:
        """Whether it was sent SIGKILL."""
        return bool(self.kill_reason)

    @property
    def is_expected_to_end(self) -> bool:
        """Whether its end is the master's own wish; a hung worker's is not."""
        return self.state is WorkerState.RETIRING or self.kill_reason not in ("", HUNG)

    @property
    def is_holding(self) -> bool:
        """Whether it fills its slot, or is about to."""
        return self.state is not WorkerState.RETIRING and not self.is_killed and self.questioned_at is None

    @property
    def is_ready(self) -> bool:
        """Whether it serves and is to go on doing so."""
        return self.state is WorkerState.READY and self.is_holding

    def close(self) -> None:
        """Close this process's ends of its channels."""
        for channel in (self.channel, self.connections, self.far_end):
            channel.close()

    @property
    def connection_count(self) -> int:
        """Connections it serves now."""
        return self.row[Cell.CONNECTIONS]

    @property
    def load(self) -> int:
        """Connections it serves or that are on their way to it. Its own count of those that came tells which, not
        what it says of them: that is heard later, and they would be counted twice until then."""
        return self.connection_count + self.given - self.row[Cell.ADOPTED]

    @property
    def room(self) -> int:
        """Connections it could serve beyond those it has and gets."""
        return max(0, self.row[Cell.CONNECTION_LIMIT] - self.load)

    def is_full(self, now: float) -> bool:
        """Whether calls have had all its greenlets for a while: what it adopted would not be read."""
        return is_full(self.row[Cell.GREENLETS_TAKEN_AT], int(now * 1e9))

    def full_seconds(self, now: float) -> float:
        """For how long; 0 if it is not."""
        return now - self.row[Cell.GREENLETS_TAKEN_AT] / 1e9 if self.is_full(now) else 0.0

    def is_moving(self, now: float) -> bool:
        """Whether it retires, and the connections that it has are on their way to others."""
        return self.retired_at is not None and self.connection_count > 0 and now < self.retired_at + MOVING_SECONDS

    def watch(self, watched_seconds: float, now: float, max_memory: int) -> None:
        """Look at the scoreboard: ``watched_seconds`` have passed under the master's eyes since the last look."""
        beat = self.row[CommonCell.HEARTBEAT]
        self.silent_seconds = 0.0 if beat != self._beat_seen else self.silent_seconds + watched_seconds
        self._beat_seen = beat
        if max_memory and self.row[CommonCell.RSS_BYTES] > max_memory and self._is_ready_for(MEMORY_GRACE_SECONDS, now):
            self.want_recycling(now, "max_memory")

    def is_fresh(self, now: float) -> bool:
        """Whether it has just become ready: what memory it takes it needs."""
        return self.is_ready and not self._is_ready_for(FRESH_SECONDS, now)

    def _is_ready_for(self, seconds: float, now: float) -> bool:
        return self.ready_at is not None and now - self.ready_at >= seconds

    def want_recycling(self, since: float, reason: str) -> None:
        """Note that it is overdue; the first reason stays."""
        if self.overdue is None:
            self.overdue = Overdue(since, reason)

    def method_it_hangs_in(self) -> str:
        """The method's name: as it told when asked, else the one it began last."""
        number = self.row[CommonCell.HUNG_IN] or self.row[CommonCell.RUNNING]
        if 0 < number <= len(self.methods):
            return self.methods[number - 1]
        return "its boot" if self.state is WorkerState.BOOTING else "no method"
