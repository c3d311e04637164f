"""The parts of a booted worker, made and joined. Nothing happens here: `rpccluster.worker.server` lets it happen."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Protocol

import gevent

from rpccluster import system
from rpccluster.child.assignment import Assignment, RPCPart
from rpccluster.child.cells import Cells
from rpccluster.child.settings import ServiceSettings
from rpccluster.ipc.messages import Message, WantsToRetire
from rpccluster.ipc.scoreboard import Cell
from rpccluster.ledger.layout import Shape
from rpccluster.log import escaped, logger, set_format, set_level
from rpccluster.rate_limit import LogLimiter
from rpccluster.worker.accepting.acceptor import Acceptor
from rpccluster.worker.accepting.connection_limit import tell_limit
from rpccluster.worker.accepting.lock import AcceptLock
from rpccluster.worker.access.access import Access
from rpccluster.worker.access.rates import Rates
from rpccluster.worker.connections.adopting import Adopting
from rpccluster.worker.connections.context import ConnectionContext, Follower
from rpccluster.worker.connections.giving import Giving
from rpccluster.worker.connections.handover_channel import HandoverChannel
from rpccluster.worker.connections.keeping import Keeping
from rpccluster.worker.connections.table import Connections
from rpccluster.worker.hot import Engine, make_engine
from rpccluster.worker.inquiries import Inquiries
from rpccluster.worker.limits import Limits
from rpccluster.worker.live_options import LiveOptions, call_limit
from rpccluster.worker.native.kinds import NativeKinds
from rpccluster.worker.native.stall_watch import StallWatch
from rpccluster.worker.native.watched import AsyncioLoop, HubLoop, Watched
from rpccluster.worker.process.taken_greenlets import TakenGreenlets
from rpccluster.worker.retirement import Retirement
from rpccluster.worker.service.left_behind import LeftBehind
from rpccluster.worker.service.pool_tasks import tasks_left
from rpccluster.worker.service.registry import Registry, Runs
from rpccluster.worker.service.tracing import tracing
from rpccluster.worker.service.wrapper import Wrapper
from rpccluster.worker.tally import make_tally
from rpccluster.worker.voting import Voting

__all__ = ["Inside", "Parts", "Served"]


class Inside(Protocol):
    """The part of a service of the package itself that speaks with the master."""

    def start(self) -> None:
        """Begin to work, since the process is ready to serve."""

    def hear(self, message: Message, descriptors: list[int]) -> None:
        """Take a message of the master that the server does not know, and own its descriptors."""

    def retire(self, *, whole_cluster: bool) -> None:
        """Finish the work, since a successor will go on with it, or everything ends; that may come second."""

    @property
    def is_at_rest(self) -> bool:
        """Whether its connections may go, once it was told to retire."""

    def end(self) -> None:
        """Stop where it is, since its time is over."""


@dataclass(frozen=True)
class Served:
    """What a worker serves: an object with methods. ``code_files`` are told to the master, which watches them.

    ``inside`` is the other half of a service of the package itself, and ``follower`` follows its connections; a user's
    has none. One that ``listens`` itself accepts at the listeners, and speaks another protocol there.
    """

    service: Any
    code_files: Sequence[str] = ()
    inside: Inside | None = None
    follower: Follower | None = None
    listens: bool = False


class Parts:
    """The parts of one worker; made once the service is loaded."""

    def __init__(
        self,
        assignment: Assignment[RPCPart],
        served: Served,
        settings: ServiceSettings,
        ask_to_retire: Callable[[str], None],
        on_finished: Callable[[], None],
    ) -> None:
        """Raises `ServiceUnfit`.

        ``settings`` are the service's. ``ask_to_retire`` asks the master for a successor, with a reason, and
        ``on_finished`` is called, repeatedly, when a retiring worker has nothing left to do.
        """
        part = assignment.part
        self._assignment = assignment
        self._service = served.service
        self._listens = served.listens
        self.loop = gevent.get_hub().loop
        self.row = assignment.row
        self.cells = Cells(self.row)
        self.limits = Limits(self.row.cells, LogLimiter())
        self.tally = make_tally(-1 if part.kind else part.metrics, self.row)
        self.options = LiveOptions.of(assignment.options)
        self.native = NativeKinds(self.loop, self.options, self.limits, self.row, ask_to_retire)
        self.registry = self._make_registry()
        self._warn_of_odd_methods()
        self.access = self._make_access()
        self._ledger = self._map_ledger()
        self.engine = engine = self._make_engine()
        self._have_rules()
        self.native.serve(engine.go_on)
        self.left_behind = self._make_left_behind()
        self.voting = Voting(settings, self.row, engine.running, assignment.channel.send, ask_to_retire)
        self.taken_greenlets = TakenGreenlets(self.options, engine.running_methods)
        self.connections = connections = self._make_connections(served.follower)
        self.inquiries = Inquiries(engine, connections.open, assignment.channel.send)
        channel = HandoverChannel(self.loop, part.connections)
        self.giving = Giving(self.loop, channel, connections.context, engine, self.row, assignment.serial, part.kind)
        self.adopting = Adopting(channel, connections.context, engine, connections.adopt, self.row)
        self.retirement = Retirement(self.loop, engine, connections.open, channel, on_finished)
        self.acceptor = self._make_acceptor()
        self._have_copies_kept(channel)
        self.stall_watch = StallWatch(self._loops(), self.options, self.row, part.stall_timer)
        self.options.follow(self._follow_options)

    def trace(self) -> None:
        """Let calls have spans if the service has set what takes them."""
        spans = None if self._assignment.part.kind else tracing()
        if spans is not None:
            self.registry.trace(spans)
            self.registry.wrap_all(self.options.call_timeout, self.options.cancel_on_disconnect)

    def ledger_bytes(self) -> int:
        """Return how much memory the ledger holds."""
        return os.fstat(self._assignment.part.ledger).st_blocks * 512 if self._ledger is not None else 0

    def let_go_of_ledger(self) -> None:
        """Keep a child that the service has forked from writing into the ledger of its parent."""
        if self._ledger is not None:
            system.make_private(self._ledger[0])
            system.let_go_of_file(self._ledger_file)

    # -- inside

    def _make_registry(self) -> Registry:
        options, wrapper = self.options, Wrapper(self.options, self._assignment.logs, self.limits)
        marked_only = self._assignment.options.expose == "marked"
        return Registry(self._service, options.call_timeout, wrapper, self.native.entry, marked_only=marked_only)

    def _loops(self) -> list[Watched]:
        """Return the loops that must not be held up."""
        coroutines = self.native.of(Runs.ON_LOOP)
        hub = HubLoop(gevent.get_hub())
        return [hub] if coroutines is None else [hub, AsyncioLoop(coroutines)]

    def _warn_of_odd_methods(self) -> None:
        """Log, in one worker, which attributes are served that may not be meant to be."""
        odd = self.registry.odd
        if odd and self._assignment.slot == 0:
            told = (
                "Serving public attributes that are no functions of the class: %s (expose = marked serves marked ones)"
            )
            logger.warning(told, escaped(", ".join(odd)))

    def _make_access(self) -> Access:
        assignment, kind = self._assignment, self._assignment.part.kind
        rates = Rates(assignment.scoreboard, assignment.row_number)
        own = f"uid:{os.geteuid()}" if kind else ""  # other processes of the cluster call its services
        return Access(self.registry, self.limits, rates, kind, own)

    def _make_left_behind(self) -> LeftBehind:
        """Wait at the end for what the service has begun beside its calls."""
        made = LeftBehind(gevent.get_hub())
        made.add(self.native.left_behind)
        made.add(tasks_left)
        return made

    def _have_rules(self) -> None:
        """Let the rules of ``[access]`` hold, now and when they change."""
        self._use_rules()
        self.options.follow(lambda options, changed: self._use_rules() if "access" in changed else None)

    def _use_rules(self) -> None:
        """Let the present rules of ``[access]`` hold."""
        self.access.set_rules(self.options.access)
        if self._assignment.slot == 0 and not self._assignment.part.kind:
            self.access.warn_of_unmatched()

    def _make_engine(self) -> Engine:
        return make_engine(
            self._assignment.options.engine,
            self.registry,
            self.row.cells,
            self.options,
            self.access,
            on_refused=self.limits.note_refused,
            call_limit=call_limit(self.options),
            on_call_limit=lambda: self._assignment.channel.send(WantsToRetire("max_requests")),
            ledger=self._ledger,
            tally=self.tally,
        )

    def _map_ledger(self) -> tuple[mmap.mmap, Shape] | None:
        """Map the file in which the engine notes what its connections need to go on if this worker is killed."""
        part = self._assignment.part
        if part.ledger < 0 or part.ledger_shape is None:
            return None
        memory = system.map_for_this_process(part.ledger, part.ledger_shape.size)
        self._ledger_file = os.fstat(part.ledger)
        return memory, part.ledger_shape

    def _have_copies_kept(self, channel: HandoverChannel) -> None:
        """Have the master keep copies of the connections, by which they outlive this worker, where that is wanted."""
        kept = self._assignment.part.copies
        if kept is None or not self.engine.has_ledger:
            return
        copies = HandoverChannel(self.loop, kept)
        context, keeping = self.connections.context, Keeping(self.loop, copies, channel, self.giving.new_number)
        context.on_copy_ended = keeping.note_ended
        context.number_for = keeping.number_for
        context.on_served = keeping.add
        context.on_admitted = keeping.add_now
        self.acceptor.on_accepted = keeping.tell

    def _make_connections(self, follower: Follower | None) -> Connections:
        context = ConnectionContext(self.options, self.limits)
        context.on_count = partial(self.row.cells.__setitem__, Cell.CONNECTIONS)
        context.on_adopted = self.tally.note_handover
        context.follower = follower
        return Connections(context, self.engine)

    def _make_acceptor(self) -> Acceptor:
        assignment, part = self._assignment, self._assignment.part
        return Acceptor(
            self.loop,
            [] if self._listens else part.listeners,
            self.connections.add,
            assignment.scoreboard,
            assignment.row_number,
            AcceptLock(part.accept_lock) if assignment.options.accept_lock else None,
            self.limits,
            part.proxied,
        )

    def _follow_options(self, options: LiveOptions, changed: frozenset[str]) -> None:
        if "log_level" in changed:  # else it is the service's, which may have set another
            set_level(options.log_level)
        if "log_format" in changed:
            set_format(options.log_format)
        if changed & {"max_requests", "max_requests_jitter"}:
            self.engine.set_call_limit(call_limit(options))
        tell_limit(self.row, options)
        self.registry.wrap_all(options.call_timeout, options.cancel_on_disconnect)
