"""A booted worker: serves, writes heartbeats, obeys the master, retires. Runs in the worker, on gevent's loop.

Joins the modules beside it; every wait of a worker is one of the watchers made here.
"""

from __future__ import annotations

import faulthandler
import gc
import mmap
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Protocol

import gevent
import gevent.event
from gevent.monkey import get_original

from rpccluster import system
from rpccluster.child.assignment import Assignment, RPCPart
from rpccluster.child.cells import Cells
from rpccluster.child.life import EXIT_CRASHED
from rpccluster.child.settings import ServiceSettings
from rpccluster.ipc.messages import (
    Accept,
    Inquire,
    Listen,
    Message,
    Propose,
    Ready,
    Release,
    ReopenLogs,
    Retire,
    Switch,
    WantsToRetire,
)
from rpccluster.ipc.scoreboard import Cell, RowState
from rpccluster.ledger.layout import Shape
from rpccluster.log import escaped, logger, set_format, set_level
from rpccluster.rate_limit import LogLimiter
from rpccluster.service import Service, WorkerInfo
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
from rpccluster.worker.current import present_method
from rpccluster.worker.hot import Engine, make_engine
from rpccluster.worker.inquiries import Inquiries
from rpccluster.worker.lifecycle import Event, State, next_state
from rpccluster.worker.limits import Limits
from rpccluster.worker.live_options import LiveOptions, call_limit
from rpccluster.worker.native.kinds import NativeKinds
from rpccluster.worker.native.stall_watch import StallWatch
from rpccluster.worker.native.watched import AsyncioLoop, HubLoop, Watched
from rpccluster.worker.process.forks import leave
from rpccluster.worker.process.freed_memory import FreedMemory
from rpccluster.worker.process.service_signals import ServiceSignals
from rpccluster.worker.retirement import Retirement
from rpccluster.worker.service.left_behind import LeftBehind
from rpccluster.worker.service.pool_tasks import end_tasks, tasks_left
from rpccluster.worker.service.registry import Registry, Runs
from rpccluster.worker.service.tracing import tracing
from rpccluster.worker.service.wrapper import Wrapper
from rpccluster.worker.taken_greenlets import TakenGreenlets
from rpccluster.worker.tally import make_tally
from rpccluster.worker.voting import Voting

__all__ = ["BEAT_SECONDS", "Inside", "Served", "Server"]

BEAT_SECONDS = 0.5
TERM_WAIT_SECONDS = 0.1  # in which the master may say that the whole cluster stops

REST_SECONDS = 1.0  # before graceful_timeout is over, when a service of the package itself must have come to rest
REST_LOOK_SECONDS = 0.01

EARLY_SECONDS = 5.0  # a crash after this time is no sign that workers die in a loop
MOST_FAILURES = 10  # exceptions in the main greenlet that a worker outlives

KEPT_BYTES = 32 << 20
GC_THRESHOLDS = (20_000, 20, 20)  # a batch of calls in flight is no garbage: look through it rarely

_set_handler = get_original("signal", "signal")


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


class Server:
    """One worker: made when the service is loaded, and runs until `serve` returns."""

    def __init__(
        self,
        assignment: Assignment[RPCPart],
        signals: ServiceSignals,
        served: Served,
        settings: ServiceSettings,
    ) -> None:
        """Raises `ServiceUnfit`, and any exception of the service's ``worker_started``.

        ``settings`` are the service's.
        """
        part, service = assignment.part, served.service
        self._assignment = assignment
        self._service = service
        self._served = served
        self._signals = signals
        self._channel = assignment.channel
        self._row = assignment.row
        self._cells = Cells(self._row)
        self._loop = gevent.get_hub().loop
        self._state = State.BOOTING
        self._finished = gevent.event.Event()
        self._freed = FreedMemory()
        self._limits = Limits(self._row.cells, LogLimiter())
        self._tally = make_tally(-1 if part.kind else part.metrics, self._row)
        self.options = LiveOptions.of(assignment.options)
        self._native = NativeKinds(self._loop, self.options, self._limits, self._row, self._ask_to_retire)
        self._registry = self._make_registry()
        self._warn_of_odd_methods()
        self._access = self._make_access()
        self._ledger = self._map_ledger()
        self._engine = engine = self._make_engine()
        self._have_rules()
        self._native.serve(engine.go_on)
        self._left_behind = self._make_left_behind()
        self._voting = Voting(settings, self._row, engine.running, self._channel.send, self._ask_to_retire)
        self._taken_greenlets = TakenGreenlets(self.options, engine.running_methods)
        self._connections = connections = self._make_connections()
        self._inquiries = Inquiries(engine, connections.open, self._channel.send)
        channel = HandoverChannel(self._loop, part.connections)
        self._giving = Giving(self._loop, channel, connections.context, engine, self._row, assignment.serial, part.kind)
        self._adopting = Adopting(channel, connections.context, engine, connections.adopt, self._row)
        self._retirement = Retirement(self._loop, engine, connections.open, channel, self._finish)
        self._acceptor = self._make_acceptor()
        self._have_copies_kept(channel)
        self._stall_watch = StallWatch(self._loops(), self.options, self._row, part.stall_timer)
        self._watchers = self._make_watchers()
        self.options.follow(self._follow_options)
        if isinstance(service, Service):
            service.worker_started(self._info())
        self._trace()

    def _make_registry(self) -> Registry:
        options, wrapper = self.options, Wrapper(self.options, self._assignment.logs, self._limits)
        marked_only = self._assignment.options.expose == "marked"
        return Registry(self._service, options.call_timeout, wrapper, self._native.entry, marked_only=marked_only)

    def _trace(self) -> None:
        """Let calls have spans if the service has set what takes them."""
        spans = None if self._assignment.part.kind else tracing()
        if spans is not None:
            self._registry.trace(spans)
            self._registry.wrap_all(self.options.call_timeout, self.options.cancel_on_disconnect)

    def _loops(self) -> list[Watched]:
        """Return the loops that must not be held up."""
        coroutines = self._native.of(Runs.ON_LOOP)
        hub = HubLoop(gevent.get_hub())
        return [hub] if coroutines is None else [hub, AsyncioLoop(coroutines)]

    def _warn_of_odd_methods(self) -> None:
        """Log, in one worker, which attributes are served that may not be meant to be."""
        odd = self._registry.odd
        if odd and self._assignment.slot == 0:
            told = (
                "Serving public attributes that are no functions of the class: %s (expose = marked serves marked ones)"
            )
            logger.warning(told, escaped(", ".join(odd)))

    def _make_access(self) -> Access:
        assignment, kind = self._assignment, self._assignment.part.kind
        rates = Rates(assignment.scoreboard, assignment.row_number)
        own = f"uid:{os.geteuid()}" if kind else ""  # other processes of the cluster call its services
        return Access(self._registry, self._limits, rates, kind, own)

    def _make_left_behind(self) -> LeftBehind:
        """Wait at the end for what the service has begun beside its calls."""
        made = LeftBehind(gevent.get_hub())
        made.add(self._native.left_behind)
        made.add(tasks_left)
        return made

    def _have_rules(self) -> None:
        """Let the rules of ``[access]`` hold, now and when they change."""
        self._use_rules()
        self.options.follow(lambda options, changed: self._use_rules() if "access" in changed else None)

    def _use_rules(self) -> None:
        """Let the present rules of ``[access]`` hold."""
        self._access.set_rules(self.options.access)
        if self._assignment.slot == 0 and not self._assignment.part.kind:
            self._access.warn_of_unmatched()

    def _make_engine(self) -> Engine:
        return make_engine(
            self._assignment.options.engine,
            self._registry,
            self._row.cells,
            self.options,
            self._access,
            on_refused=self._limits.note_refused,
            call_limit=call_limit(self.options),
            on_call_limit=lambda: self._channel.send(WantsToRetire("max_requests")),
            ledger=self._ledger,
            tally=self._tally,
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
        if kept is None or not self._engine.has_ledger:
            return
        copies = HandoverChannel(self._loop, kept)
        context, keeping = self._connections.context, Keeping(self._loop, copies, channel, self._giving.new_number)
        context.on_copy_ended = keeping.note_ended
        context.number_for = keeping.number_for
        context.on_served = keeping.add
        context.on_admitted = keeping.add_now
        self._acceptor.on_accepted = keeping.tell

    def _make_connections(self) -> Connections:
        context = ConnectionContext(self.options, self._limits)
        context.on_count = self._count_connections
        context.on_adopted = self._tally.note_handover
        context.follower = self._served.follower
        return Connections(context, self._engine)

    def _make_acceptor(self) -> Acceptor:
        assignment, part = self._assignment, self._assignment.part
        return Acceptor(
            self._loop,
            [] if self._served.listens else part.listeners,
            self._connections.add,
            assignment.scoreboard,
            assignment.row_number,
            AcceptLock(part.accept_lock) if assignment.options.accept_lock else None,
            self._limits,
            part.proxied,
        )

    def _make_watchers(self) -> list[Any]:
        """Watch the heartbeat's timer, the channel and TERM, as long as the worker lives."""
        beat = self._loop.timer(0.0, BEAT_SECONDS)
        beat.start(self._beat)
        channel = self._loop.io(self._channel.fileno(), system.READABLE)
        channel.start(self._on_channel)
        self._term = self._loop.signal(signal.SIGTERM)
        self._term.start(self._on_term)
        faulthandler.unregister(system.TELL_SIGNAL)  # what answered during the boot
        _set_handler(system.TELL_SIGNAL, self._tell_method)
        faulthandler.register(system.TELL_SIGNAL, self._assignment.logs.log_descriptor, all_threads=False, chain=True)
        return [beat, channel]

    def serve(self) -> int:
        """Serve until retired. Returns the exit code."""
        tell_limit(self._row, self.options)
        system.keep_freed_memory(KEPT_BYTES)
        self._left_behind.begin()
        gc.collect()  # the service's own: all before it is left out already
        system.keep_out_of_collections()
        if hasattr(gc, "set_threshold"):  # not PyPy's
            gc.set_threshold(*GC_THRESHOLDS)
        self._step(Event.BOOTED)
        if self._served.inside is not None:
            self._served.inside.start()
        self._channel.send(Ready(self._registry.names, self._served.code_files, self._engine.name))
        self._stall_watch.start()
        code = self._wait_for_the_end()
        self._stall_watch.stop()
        self._native.wait_for_cancelled()
        self._left_behind.wait(self._retirement.ends_at)
        if isinstance(self._service, Service):
            self._service.worker_stopping(self._info())
        self._left_behind.finish(self._retirement.ends_at)
        end_tasks()
        return code

    def _wait_for_the_end(self) -> int:
        """Wait until the worker has finished. Returns the exit code.

        An exception thrown into this greenlet ends no connection: a successor gets them first.
        """
        begun, failures = time.monotonic(), 0
        while not self._finished.is_set():
            try:
                self._finished.wait()
            except BaseException:
                failures += 1
                if self._state is State.GONE or failures > MOST_FAILURES:
                    raise
                logger.critical("Worker crashed; it serves on until it has a successor", exc_info=True)
                # not at once after the start, since each successor may crash, too
                self._after(max(0.0, begun + EARLY_SECONDS - time.monotonic()), self._ask_to_retire, "it has crashed")
        return EXIT_CRASHED if failures else 0

    def leave_to_parent(self) -> None:
        """Drop the connections and the engine's queue, in a child that the service has forked."""
        self._state = State.GONE
        if self._ledger is not None:
            system.make_private(self._ledger[0])
            system.let_go_of_file(self._ledger_file)
        self._tally.leave()
        self._connections.leave_to_parent()
        self._adopting.leave_to_parent()
        self._engine.leave_to_parent(leave)

    def _info(self) -> WorkerInfo:
        return WorkerInfo(self._assignment.slot, os.getpid(), self._assignment.generation, self._set_health)

    def _set_health(self, is_healthy: bool) -> None:
        """Note what the service says; it may say so in any thread."""
        self._registry.is_healthy = is_healthy
        self._loop.run_callback_threadsafe(self._show_state)

    def _step(self, event: Event) -> None:
        self._state = next_state(self._state, event)
        self._show_state()

    def _show_state(self) -> None:
        """Accept connections while this worker serves and is healthy, and let the siblings know."""
        accepts = self._state is State.SERVING and self._registry.is_healthy
        if self._state is State.SERVING:
            self._acceptor.start() if accepts else self._acceptor.pause()
        self._cells.show(RowState.ACCEPTING if accepts else RowState.NOT_ACCEPTING)

    # -- signs of life

    def _beat(self) -> None:
        row = self._row
        now_ns = time.monotonic_ns()
        resident = self._cells.beat(now_ns, self._ledger_bytes())
        self._taken_greenlets.look(row[Cell.GREENLETS_TAKEN_AT], now_ns)
        row[Cell.DROPPED_REPLIES] = self._engine.dropped_replies
        self._access.level()
        self._tally.carry_over()
        self._connections.sweep()
        self._inquiries.look()
        self._voting.sweep()
        self._assignment.logs.flush()
        self._keep_term()
        if self._freed.is_due(resident, self._engine.has_handled_large(), time.monotonic()):
            system.give_back_freed_memory()
            self._freed.settle(system.resident_bytes())

    def _ledger_bytes(self) -> int:
        """Return how much memory the ledger holds."""
        return os.fstat(self._assignment.part.ledger).st_blocks * 512 if self._ledger is not None else 0

    def _keep_term(self) -> None:
        """Take TERM back from a service that has set a handler behind the back of `ServiceSignals`."""
        if self._signals.is_set_behind_us(signal.SIGTERM):
            _set_handler(signal.SIGTERM, signal.SIG_DFL)
            self._term.stop()
            self._term.start(self._on_term)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))

    def _count_connections(self, count: int) -> None:
        self._row.cells[Cell.CONNECTIONS] = count

    def _tell_method(self, signum: int, frame: object) -> None:
        """Tell the master, which takes this worker for hung, the running method; the stack was dumped before."""
        self._cells.tell_where(self._registry.numbers.get(present_method(), 0))

    def _follow_options(self, options: LiveOptions, changed: frozenset[str]) -> None:
        if "log_level" in changed:  # else it is the service's, which may have set another
            set_level(options.log_level)
        if "log_format" in changed:
            set_format(options.log_format)
        if changed & {"max_requests", "max_requests_jitter"}:
            self._engine.set_call_limit(call_limit(options))
        tell_limit(self._row, options)
        self._registry.wrap_all(options.call_timeout, options.cancel_on_disconnect)

    # -- what the master says

    def _on_channel(self) -> None:
        for message, descriptors in self._channel.receive():
            self._obey(message, descriptors)
        if self._channel.is_closed:
            os._exit(1)  # the master is gone: nothing outlives it
        self._channel.flush()

    def _obey(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Accept):
            self._step(Event.MAY_ACCEPT)
        elif isinstance(message, Retire):
            self._retire(message)
        elif isinstance(message, ReopenLogs):
            self._assignment.logs.take(descriptors, message.access_path)
        elif isinstance(message, Listen):
            self._acceptor.add(descriptors)
        elif isinstance(message, Propose):
            self._voting.propose(message)
        elif isinstance(message, Switch):
            self.options.take(message.options)
            self._voting.switch(message)
        elif isinstance(message, Release):
            self._release(message)
        elif self._served.inside is not None:
            self._served.inside.hear(message, descriptors)
        elif isinstance(message, Inquire):
            self._inquiries.hear(message)

    def _release(self, order: Release) -> None:
        """Give connections away; a service of the package itself may first have to tell its callers something."""
        inside = self._served.inside
        if inside is None or not self._retirement.began_at or self._comes_to_rest(inside):
            self._giving.release(order)
        else:
            self._after(REST_LOOK_SECONDS, self._release, order)

    def _comes_to_rest(self, inside: Inside) -> bool:
        """Return whether ``inside`` is at rest, or has had its time."""
        if inside.is_at_rest:
            return True
        is_late = time.monotonic() >= self._retirement.ends_at - REST_SECONDS
        if is_late:
            inside.end()
        return is_late

    def _on_term(self) -> None:
        """Ask for a successor, unless the master is stopping the whole cluster."""
        self._after(TERM_WAIT_SECONDS, self._ask_to_retire, "SIGTERM")

    def _after(self, seconds: float, do: Callable[..., object], *arguments: Any) -> None:
        timer = self._loop.timer(seconds)
        timer.start(do, *arguments)
        self._watchers.append(timer)

    def _ask_to_retire(self, reason: str) -> None:
        if self._state not in (State.RETIRING, State.GONE):
            self._channel.send(WantsToRetire(reason))

    # -- the end

    def _retire(self, order: Retire) -> None:
        self._step(Event.MUST_RETIRE)
        if self._state is State.GONE:  # it waits for the service's last hook alone
            return
        logger.info("Worker retiring (pid: %d)", os.getpid())
        system.set_title(f"{self._assignment.title} (retiring)")
        self._acceptor.stop(drain=order.whole_cluster)
        if order.whole_cluster:
            self._connections.stop_reading()
        if self._served.inside is not None:
            self._served.inside.retire(whole_cluster=order.whole_cluster)
        self._retirement.begin(order)

    def _finish(self) -> None:
        if self._state is State.RETIRING:
            self._step(Event.FINISHED)
            self._access.level()
            self._tally.carry_over()
            self._adopting.stop()
            self._giving.stop()
            self._giving.tell(self._retirement.began_at)
            self._finished.set()
