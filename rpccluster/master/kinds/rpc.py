"""RPC workers as their master sees them: methods, connections, load, counters. Runs in the master.

`rpccluster.worker` is the process itself. `rpccluster.master.handover` moves connections between them.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol

from rpccluster.address import ProxiedAddress
from rpccluster.child.assignment import RPCPart
from rpccluster.child.own_code import OwnCode
from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.ipc.fdpass import memory_file
from rpccluster.ipc.messages import BootFailed, Findings, Message, Ready, Retire, Switched, Vote, WantsToRetire
from rpccluster.ipc.packets import Passing, close_all
from rpccluster.ipc.scoreboard import LIMITS, MOST_DESCRIPTORS, Cell, CommonCell, is_full
from rpccluster.ledger.file import LedgerFile
from rpccluster.ledger.layout import Shape
from rpccluster.ledger.why import NO_LEDGER, PYTHON_ENGINE, STARTED_WITHOUT
from rpccluster.log import logger
from rpccluster.master.children.child import KILL_SLACK_SECONDS, MOVING_SECONDS, Birth, Child, ChildState, Source
from rpccluster.master.children.group import Group
from rpccluster.master.counts import Counts
from rpccluster.master.kinds.kind import Booted, Gone, KindEvent, Passed, Told, Voted
from rpccluster.master.kinds.stalls import Stalls
from rpccluster.master.kinds.totals import Totals
from rpccluster.metrics.layout import OTHER
from rpccluster.rate_limit import LogLimiter
from rpccluster.system import make_room_for, room_beside
from rpccluster.system.clock import Timer
from rpccluster.system.stream_counters import COUNTS_STREAMS

__all__ = ["RPC", "RPCWorker"]

FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS)
MOST_BEGUN = 65_536  # calls of one worker at a time whose connections outlive it
COPIES_PACKET_BYTES = 16_384  # as many as they read costs them each time
STALL_SECONDS = 60.0  # between two lines about a process that stands still in the same method


class Closable(Protocol):
    """What holds a descriptor."""

    def close(self) -> None:
        """Close it."""


class RPCWorker(Child):
    """One RPC worker, as its master sees it."""

    reads_settings = True
    kind = "rpc"

    def __init__(self, birth: Birth, connections: Channel, far_end: Channel, stalls: Stalls) -> None:
        super().__init__(birth)
        self.stalls = stalls
        self.connections = connections  # the channel on which connections travel
        self.far_end = far_end  # the worker's end of that, from which unread messages are read back
        self.methods: list[str] = []
        self.code_files: Sequence[str] = ()  # of its service, if they are watched
        self.silent_seconds = 0.0  # at the last look
        self.ledger: LedgerFile | None = None  # what it notes of its connections, which outlive it by that
        self.why_uncovered = STARTED_WITHOUT  # why none outlives it; empty if it has a ledger
        self.copies: Channel | None = None  # on which it sends copies of its sockets; nobody watches it
        self.ledger_parts: list[Closable] = []
        self.given = 0  # connections that were sent to it, and neither taken back nor refused

    def sources(self) -> list[Source]:
        return [self.channel, self.connections, self.stalls.timer]

    def read(self, source: Source) -> list[tuple[Passing, list[int]]]:
        if source is self.stalls.timer:
            self.stalls.read(self)
            return []
        return self.connections.receive_unopened() if source is self.connections else super().read(source)

    def close(self) -> None:
        super().close()
        self.far_end.close()
        for part in self.ledger_parts:
            part.close()

    def farewell(self, order: Retire) -> Message:
        return order

    @property
    def has_crashed(self) -> bool:
        """Whether it has ended by a fault of its own process, such as a segmentation fault."""
        return self.exit is not None and self.exit.signal in FAULTS

    def is_moving(self, now: float) -> bool:
        return self.retired_at is not None and self.connection_count > 0 and now < self.retired_at + MOVING_SECONDS

    def serve_on(self, kill_at: float) -> None:
        """Give a retiring worker that still has connections until ``kill_at`` at least."""
        if self.kill_at is not None and self.connection_count:
            self.kill_at = max(self.kill_at, kill_at)

    def where_it_hangs(self) -> str:
        """Return the name of the method that it hangs in: its own answer, else the method that it began last."""
        number = self.row[CommonCell.HUNG_IN] or self.row[CommonCell.RUNNING]
        if 0 < number <= len(self.methods):
            return self.methods[number - 1]
        return "its boot" if self.state is ChildState.BOOTING else "no method"

    @property
    def connection_count(self) -> int:
        """Number of connections that it serves now."""
        return self.row[Cell.CONNECTIONS]

    @property
    def load(self) -> int:
        """Number of connections that it serves or that are on their way to it.

        The worker's own counter says which have come. Its `Adopted` comes later: until then a connection would count
        twice.
        """
        return self.connection_count + self.given - self.row[Cell.ADOPTED]

    @property
    def room(self) -> int:
        """Number of connections that it could serve beyond its load."""
        return max(0, self.row[Cell.CONNECTION_LIMIT] - self.load)

    def is_full(self, now: float) -> bool:
        """Return whether calls have held all its greenlets for a while, so that it reads no connection."""
        return is_full(self.row[Cell.GREENLETS_TAKEN_AT], int(now * 1e9))

    def full_seconds(self, now: float) -> float:
        """Return for how many seconds it has been full; 0 if it is not."""
        return now - self.row[Cell.GREENLETS_TAKEN_AT] / 1e9 if self.is_full(now) else 0.0


class RPC:
    """The kind of the workers that serve MessagePack-RPC; a `rpccluster.master.kinds.kind.Kind`."""

    name = "rpc"
    noun = "worker"
    _child: ClassVar[type[RPCWorker]] = RPCWorker

    def __init__(self, own_code: OwnCode | None = None, *, has_lock: bool = True) -> None:
        """``own_code`` is the code with which workers boot. Without ``has_lock`` each accepts whenever it can."""
        self.own_code = own_code
        # in memory, so that no folder need be writable
        self._accept_lock = memory_file(name="accept-lock") if has_lock else -1
        self._stall_limiter = LogLimiter(STALL_SECONDS)
        self.totals = Totals()
        self.counts = Counts()  # the file in which its processes count
        self._room_for_copies = 0  # at the last look
        self.engine = ""  # the one that runs the calls; empty until a first process is ready

    def equip(self, birth: Birth) -> tuple[RPCWorker, RPCPart]:
        edition: Any = birth.edition
        listeners = [listener.socket for listener in edition.listeners]
        if self.own_code is not None:
            self.own_code.tell_of_changes()
        stalls = Stalls(Timer(), self.noun, self._stall_limiter)
        try:
            connections, far_end = channel_pair()
        except OSError:
            stalls.timer.close()
            raise
        kind = "" if self.name == RPC.name else self.name
        proxied = [place for place, each in enumerate(edition.listeners) if isinstance(each.wanted, ProxiedAddress)]
        child = self._child(birth, connections, far_end, stalls)
        metrics = -1 if kind else self.counts.of(edition.configuration)
        part = RPCPart(far_end, listeners, self._accept_lock, stalls.timer, kind, proxied=proxied, metrics=metrics)
        return child, self._with_ledger(child, part, edition.options)

    def _with_ledger(self, child: RPCWorker, part: RPCPart, options: Any) -> RPCPart:
        """Return ``part`` with a ledger and a channel of copies, if the connections shall outlive the worker."""
        ledger, child.why_uncovered = self._make_ledger(options)
        if ledger is None:
            return part
        child.ledger = ledger
        child.ledger_parts.append(ledger)
        try:
            child.copies, theirs = channel_pair(COPIES_PACKET_BYTES)
        except OSError:
            child.close()
            raise
        child.ledger_parts += [child.copies, theirs]
        return replace(part, ledger=ledger.descriptor, ledger_shape=ledger.shape, copies=theirs)

    def _make_ledger(self, options: Any) -> tuple[LedgerFile | None, str]:
        """Make the ledger of a worker, if its connections shall outlive it, and can. Returns also why there is none."""
        if self.name != RPC.name or not options.crash_safe:
            return None, STARTED_WITHOUT
        if options.engine == "python":
            return None, PYTHON_ENGINE
        if not COUNTS_STREAMS:
            return None, NO_LEDGER
        self._make_room_for_copies(options.number_workers * options.worker_connections)
        shape = Shape.fitting(options.worker_connections, MOST_BEGUN, 8 * options.max_message_size)
        try:
            return LedgerFile(shape), ""
        except OSError as error:
            logger.warning("The connections of a %s would not outlive it: %s", self.noun, error)
            return None, NO_LEDGER

    def _make_room_for_copies(self, connections: int) -> None:
        """Have room for copies of so many sockets, or say once that there is less."""
        make_room_for(connections + MOST_DESCRIPTORS)
        room = room_beside(MOST_DESCRIPTORS)
        if room < connections and room != self._room_for_copies:
            told = "crash_safe holds for %d connections of the %d that there may be, since RLIMIT_NOFILE is too low"
            logger.info(told, room, connections)
        self._room_for_copies = room

    def hear(self, child: Child, message: Passing, descriptors: list[int], now: float) -> KindEvent | None:
        assert isinstance(child, RPCWorker)
        if isinstance(message, Ready):
            child.methods, child.code_files, engine = message
            self._note_engine(engine)
            if child.ledger is not None and engine == "python":
                child.why_uncovered = PYTHON_ENGINE
            event: KindEvent | None = Booted(child)
        elif isinstance(message, BootFailed):
            child.last_words, child.is_service_at_fault = message.text, message.stage == "service"
            event = None
        elif isinstance(message, (Vote, Switched)):
            event = Voted(child, message)
        elif isinstance(message, Findings):
            event = Told(child, message)
        elif isinstance(message, WantsToRetire):
            noun = self.noun.capitalize()
            logger.info("%s (pid: %d, slot: %d) wants to retire: %s", noun, child.pid, child.slot, message.reason)
            child.want_recycling(now, message.reason)
            event = None
        else:
            return Passed(child, message, descriptors)
        close_all(descriptors)
        return event

    def _note_engine(self, engine: str) -> None:
        """Keep what runs the calls, for `status`, and say once that it is not the fastest."""
        if engine != self.engine and engine == "python":
            logger.info("The Python engine runs the calls of %ss, not the compiled one", self.noun)
        self.engine = engine

    def arrange(self, group: Group, now: float) -> None:
        """Every slot is like the others."""

    def look(self, group: Group, child: Child, now: float) -> float | None:
        """Give a retiring worker time for its connections, as long as others can take them."""
        assert isinstance(child, RPCWorker)
        child.silent_seconds = now - child.silent_since
        if group.phase.allows.connections_move:
            child.serve_on(now + group.options.graceful_timeout + KILL_SLACK_SECONDS)
        return None

    def note_end(self, child: Child) -> KindEvent | None:
        self.totals.note_end(child.row)
        if self.name == RPC.name and child.exit is not None and child.exit.signal is not None:
            self._lose_calls(child)
        return Gone(child)

    def _lose_calls(self, child: Child) -> None:
        """Count the calls that had begun in a worker that was killed or has crashed."""
        assert isinstance(child, RPCWorker)
        calls, number = child.row[Cell.ACTIVE_CALLS], child.row[CommonCell.RUNNING]
        is_known = calls == 1 and 0 < number <= len(child.methods)
        if calls:
            self.counts.lose(calls, child.methods[number - 1] if is_known else OTHER)

    def forget(self, group: Group) -> None:
        """The workers never leave the configuration."""

    def status(self, child: Child, now: float) -> dict[str, Any]:
        assert isinstance(child, RPCWorker)
        row = child.row.cells.tolist()  # once, not cell by cell
        return {
            "connections": row[Cell.CONNECTIONS],
            "active_calls": row[Cell.ACTIVE_CALLS],
            "calls": row[Cell.CALLS],
            "errors": row[Cell.ERRORS],
            "adopted": row[Cell.ADOPTED],
            "handed_over": row[Cell.HANDED_OVER],
            "accepted": row[Cell.ACCEPTED],
            "accept_wakeups": row[Cell.ACCEPT_WAKEUPS],
            "dropped_replies": row[Cell.DROPPED_REPLIES],
            "threads_lost": row[Cell.THREADS_LOST],
            "full_seconds": round(child.full_seconds(now), 3),
            "stalls": row[CommonCell.STALLS],
            "limits": {name: row[cell] for name, cell in LIMITS.items()},
        }
