"""A booted worker: serves, writes heartbeats, obeys the master, retires. Runs in the worker, on gevent's loop.

Every wait of a worker is one of the watchers made here, or in one of its `Parts`.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import time
from typing import Any, Callable

import gevent
import gevent.event
from gevent.monkey import get_original

from rpccluster import system
from rpccluster.child.assignment import Assignment, RPCPart
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
from rpccluster.log import logger
from rpccluster.service import Service, WorkerInfo
from rpccluster.worker.accepting.connection_limit import tell_limit
from rpccluster.worker.current import present_method
from rpccluster.worker.lifecycle import Event, State, next_state
from rpccluster.worker.parts import Inside, Parts, Served
from rpccluster.worker.process.forks import leave
from rpccluster.worker.process.freed_memory import FreedMemory
from rpccluster.worker.process.service_signals import ServiceSignals
from rpccluster.worker.service.pool_tasks import end_tasks

__all__ = ["BEAT_SECONDS", "Server"]

BEAT_SECONDS = 0.5
TERM_WAIT_SECONDS = 0.1  # in which the master may say that the whole cluster stops

REST_SECONDS = 1.0  # before graceful_timeout is over, when a service of the package itself must have come to rest
REST_LOOK_SECONDS = 0.01

EARLY_SECONDS = 5.0  # a crash after this time is no sign that workers die in a loop
MOST_FAILURES = 10  # exceptions in the main greenlet that a worker outlives

KEPT_BYTES = 32 << 20
GC_THRESHOLDS = (20_000, 20, 20)  # a batch of calls in flight is no garbage: look through it rarely

_set_handler = get_original("signal", "signal")


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
        self._assignment = assignment
        self._service = served.service
        self._served = served
        self._signals = signals
        self._channel = assignment.channel
        self._loop = gevent.get_hub().loop
        self._state = State.BOOTING
        self._finished = gevent.event.Event()
        self._freed = FreedMemory()
        self._parts = Parts(assignment, served, settings, self._ask_to_retire, self._finish)
        self._watchers = self._make_watchers()
        if isinstance(self._service, Service):
            self._service.worker_started(self._info())
        self._parts.trace()

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
        parts = self._parts
        tell_limit(parts.row, parts.options)
        system.keep_freed_memory(KEPT_BYTES)
        parts.left_behind.begin()
        gc.collect()  # the service's own: all before it is left out already
        system.keep_out_of_collections()
        if hasattr(gc, "set_threshold"):  # not PyPy's
            gc.set_threshold(*GC_THRESHOLDS)
        self._step(Event.BOOTED)
        if self._served.inside is not None:
            self._served.inside.start()
        self._channel.send(Ready(parts.registry.names, self._served.code_files, parts.engine.name))
        parts.stall_watch.start()
        code = self._wait_for_the_end()
        parts.stall_watch.stop()
        parts.native.wait_for_cancelled()
        parts.left_behind.wait(parts.retirement.ends_at)
        if isinstance(self._service, Service):
            self._service.worker_stopping(self._info())
        parts.left_behind.finish(parts.retirement.ends_at)
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
        parts = self._parts
        self._state = State.GONE
        parts.let_go_of_ledger()
        parts.tally.leave()
        parts.connections.leave_to_parent()
        parts.adopting.leave_to_parent()
        parts.engine.leave_to_parent(leave)

    def _info(self) -> WorkerInfo:
        return WorkerInfo(self._assignment.slot, os.getpid(), self._assignment.generation, self._set_health)

    def _set_health(self, is_healthy: bool) -> None:
        """Note what the service says; it may say so in any thread."""
        self._parts.registry.is_healthy = is_healthy
        self._loop.run_callback_threadsafe(self._show_state)

    def _step(self, event: Event) -> None:
        self._state = next_state(self._state, event)
        self._show_state()

    def _show_state(self) -> None:
        """Accept connections while this worker serves and is healthy, and let the siblings know."""
        accepts = self._state is State.SERVING and self._parts.registry.is_healthy
        if self._state is State.SERVING:
            self._parts.acceptor.start() if accepts else self._parts.acceptor.pause()
        self._parts.cells.show(RowState.ACCEPTING if accepts else RowState.NOT_ACCEPTING)

    # -- signs of life

    def _beat(self) -> None:
        parts = self._parts
        row = parts.row
        now_ns = time.monotonic_ns()
        ledger_bytes = parts.ledger_bytes()
        resident = parts.cells.beat(now_ns, ledger_bytes) + ledger_bytes
        parts.taken_greenlets.look(row[Cell.GREENLETS_TAKEN_AT], now_ns)
        row[Cell.DROPPED_REPLIES] = parts.engine.dropped_replies
        parts.access.level()
        parts.tally.carry_over()
        parts.connections.sweep()
        parts.inquiries.look()
        parts.voting.sweep()
        self._assignment.logs.flush()
        self._keep_term()
        if self._freed.is_due(resident - parts.engine.freed_bytes, parts.engine.has_handled_large(), time.monotonic()):
            parts.engine.give_back_freed_memory()
            system.give_back_freed_memory()
            self._freed.settle(system.resident_bytes())

    def _keep_term(self) -> None:
        """Take TERM back from a service that has set a handler behind the back of `ServiceSignals`."""
        if self._signals.is_set_behind_us(signal.SIGTERM):
            _set_handler(signal.SIGTERM, signal.SIG_DFL)
            self._term.stop()
            self._term.start(self._on_term)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))

    def _tell_method(self, signum: int, frame: object) -> None:
        """Tell the master, which takes this worker for hung, the running method; the stack was dumped before."""
        self._parts.cells.tell_where(self._parts.registry.numbers.get(present_method(), 0))

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
            self._parts.acceptor.add(descriptors)
        elif isinstance(message, Propose):
            self._parts.voting.propose(message)
        elif isinstance(message, Switch):
            self._parts.options.take(message.options)
            self._parts.voting.switch(message)
        elif isinstance(message, Release):
            self._release(message)
        elif self._served.inside is not None:
            self._served.inside.hear(message, descriptors)
        elif isinstance(message, Inquire):
            self._parts.inquiries.hear(message)

    def _release(self, order: Release) -> None:
        """Give connections away; a service of the package itself may first have to tell its callers something."""
        inside = self._served.inside
        if inside is None or not self._parts.retirement.began_at or self._comes_to_rest(inside):
            self._parts.giving.release(order)
        else:
            self._after(REST_LOOK_SECONDS, self._release, order)

    def _comes_to_rest(self, inside: Inside) -> bool:
        """Return whether ``inside`` is at rest, or has had its time."""
        if inside.is_at_rest:
            return True
        is_late = time.monotonic() >= self._parts.retirement.ends_at - REST_SECONDS
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
        self._parts.acceptor.stop(drain=order.whole_cluster)
        if order.whole_cluster:
            self._parts.connections.stop_reading()
        if self._served.inside is not None:
            self._served.inside.retire(whole_cluster=order.whole_cluster)
        self._parts.retirement.begin(order)

    def _finish(self) -> None:
        parts = self._parts
        if self._state is State.RETIRING:
            self._step(Event.FINISHED)
            parts.access.level()
            parts.tally.carry_over()
            parts.adopting.stop()
            parts.giving.stop()
            parts.giving.tell(parts.retirement.began_at)
            self._finished.set()
