"""A worker from birth to end. Runs in the forked child; the first to import gevent, the only one to run a service.

Owns the worker's own signals, its heartbeat and its talk with the master; what it serves with is in the
modules beside it.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import logging
import os
import signal
import threading
import traceback
from importlib import metadata
from typing import Any

import gevent
import gevent.hub
from gevent import monkey

from rpccluster import system
from rpccluster.child.assignment import Assignment
from rpccluster.errors import RPCClusterError
from rpccluster.ipc.messages import BootFailed
from rpccluster.launch import enter
from rpccluster.log import escaped, logger, set_up_logging
from rpccluster.privileges import become, identity_of
from rpccluster.worker.lifecycle import EXIT_CRASHED
from rpccluster.worker.process.asyncio_loops import set_aside_at_switches
from rpccluster.worker.process.forks import Forks
from rpccluster.worker.process.log_relay import LogRelay
from rpccluster.worker.service.registry import error_text

__all__ = ["EXIT_BOOT_FAILED", "run"]

EXIT_BOOT_FAILED = 3

# A pkill by name hits workers, too; what these signals mean reaches them through the master.
_IGNORED = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
LAST_LINES_SECONDS = 1.0  # for log handlers of the service, at the end
_LONGEST_REASON = 20_000
_set_handler = signal.signal  # the original: others will take its place


def run(assignment: Assignment) -> int:
    """Be a worker until it is over. Returns the exit code; the caller ends the process with it."""
    forks = Forks(f"rpccluster: child of worker {assignment.slot} [{assignment.options.proc_name}]")
    forks.add(lambda: _leave_to_parent(assignment))
    forks.add(_receive_what_is_ignored)
    code = _run(assignment, forks)
    return 0 if forks.is_child else code  # a child that has come back here is done


def _run(assignment: Assignment, forks: Forks) -> int:
    try:
        relay = _become_worker(assignment, forks)
        server = _boot(assignment, forks)
    except RPCClusterError as error:
        return _boot_failed(assignment, "service", str(error))
    except BaseException as error:
        return _boot_failed(assignment, "worker", f"{error_text(error)}\n{traceback.format_exc().rstrip()}")
    if assignment.options.daemonize:
        assignment.logs.hold_output()
    forks.add(server.leave_to_parent)
    try:
        code = server.serve()
        atexit._run_exitfuncs()  # the service's own; the master has none
        relay.finish(LAST_LINES_SECONDS)
        return code
    except BaseException:
        if not forks.is_child:
            logger.critical("Worker crashed", exc_info=True)
        return EXIT_CRASHED


def _leave_to_parent(assignment: Assignment) -> None:
    """In a forked child: let go of all that the master has given this worker."""
    assignment.channel.close()
    assignment.connections.close()
    for listener in assignment.listeners:
        listener.close()
    os.close(assignment.accept_lock)
    assignment.scoreboard.leave()


def _boot_failed(assignment: Assignment, stage: str, reason: str) -> int:
    assignment.channel.send(BootFailed(stage, reason[:_LONGEST_REASON]))
    return EXIT_BOOT_FAILED


def _become_worker(assignment: Assignment, forks: Forks) -> LogRelay:
    """Set up the process: all that the service's code is to find."""
    options = assignment.options
    _set_signals()
    system.forget_what_is_ours()
    with contextlib.suppress(PermissionError):  # a session leader keeps its group
        os.setpgid(0, 0)
    system.set_title(assignment.title)
    set_up_logging(assignment.logs, options.log_level)
    faulthandler.enable(assignment.logs.log_descriptor)
    faulthandler.register(system.TELL_SIGNAL, assignment.logs.log_descriptor, all_threads=False)
    if assignment.cpus:
        system.pin(assignment.cpus)
    system.make_room_for(options.worker_connections)
    _patch()
    _receive_what_is_ignored()
    _load_ourselves()
    system.keep_out_of_collections()
    identity = identity_of(options.user, options.group)
    if identity is not None:
        become(identity)
        system.die_with_parent(assignment.master_pid)  # once more: the kernel forgot it with the old ids
    if options.umask is not None:
        os.umask(options.umask)
    if options.chdir:
        enter(options.chdir)
    relay = LogRelay(gevent.get_hub())
    forks.add(relay.forget)
    return relay


def _patch() -> None:
    """While it patches, gevent asks some thirty times for plugins, and each time reads about all that is installed:
    let it be told of one look. `logging` keeps its own lock: gevent's, where native threads log, too, may be waited for
    for ever, and this one is never held across a wait of ours."""
    lock = logging._lock  # type: ignore[attr-defined]
    original = metadata.entry_points
    everything: Any = original()
    metadata.entry_points = lambda **wanted: everything.select(**wanted) if wanted else everything
    try:
        monkey.patch_all()
    finally:
        metadata.entry_points = original
        logging._lock = lock  # type: ignore[attr-defined]
    set_aside_at_switches()
    # a thread that a call begins is a daemon if it says so, not because greenlets pass for daemons
    threading._DummyThread._daemonic = False  # type: ignore[attr-defined]


def _load_ourselves() -> None:
    """As long as we may: the user to become need not be able to read our files, or Python's."""

    _go_on_whatever_fails(gevent.get_hub())


def _go_on_whatever_fails(hub: gevent.hub.Hub) -> None:
    """A greenlet that a method has spawned ends with an error: that is logged like one of a method, and nothing more.

    gevent would print it, which a full disk makes fail in turn, and leave the loop for a SystemExit.
    """
    handle_error = hub.handle_error

    def log_error(context: object, kind: type[BaseException], error: BaseException, trace: object) -> None:
        if context is None or kind is gevent.hub.HubDestroyed:  # the loop itself is at its end
            handle_error(context, kind, error, trace)
        elif not issubclass(kind, hub.NOT_ERROR):
            logger.error("A greenlet failed: %s", escaped(error_text(error)), exc_info=error)

    hub.handle_error = log_error


def _set_signals() -> None:
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    for signum in (signal.SIGINT, signal.SIGCHLD, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, _end_at_once)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _receive_what_is_ignored() -> None:
    """Take the signals and do nothing: what is ignored would be so in each program that the service runs, too.

    By libev's handler, which blocks the others meanwhile. Those of Python are run on faulthandler's small stack, six
    at once overflow it.
    """
    loop = gevent.get_hub().loop
    if loop.default:  # not in a child that a native thread has forked
        for signum in _IGNORED:
            loop.signal(signum, ref=False).start(_do_nothing)


def _do_nothing() -> None:
    pass


def _end_at_once(signum: int, frame: object) -> None:
    """QUIT ends a worker as INT does: at once, without a core dump."""
    _set_handler(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def _boot(assignment: Assignment, forks: Forks):  # type: ignore[no-untyped-def]  # Server is imported when gevent has patched
    from rpccluster.worker.process.service_signals import ServiceSignals
    from rpccluster.worker.server import Server
    from rpccluster.worker.service.loading import load_service

    signals = ServiceSignals(gevent.get_hub().loop, forks)
    signals.take_over()
    service = load_service(assignment.options.service, assignment.options.pythonpath)
    forks.end_child()
    server = Server(assignment, signals, service)
    forks.end_child()
    return server
