"""An RPC worker from the load of its code to its end. Runs in the forked child; the first to import gevent.

The process is prepared already (`rpccluster.child.prepare`); what is made here is what all code of the service is to
find: gevent's patches, the worker's signals, the way of its log lines. What it serves with is in the modules beside it.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from importlib import metadata
from typing import Any

import gevent
import gevent.hub
from gevent import monkey

from rpccluster import system
from rpccluster.child.assignment import Assignment, RPCPart, Run
from rpccluster.child.life import EXIT_CRASHED, tell_boot_failed
from rpccluster.child.prepare import IGNORED
from rpccluster.failure import error_text
from rpccluster.log import escaped, logger
from rpccluster.worker.process.asyncio_loops import set_aside_at_switches
from rpccluster.worker.process.forks import Forks
from rpccluster.worker.process.log_relay import LogRelay

__all__ = ["load"]

LAST_LINES_SECONDS = 1.0  # for log handlers of the service, at the end


def load(assignment: Assignment[RPCPart]) -> Run:
    """Patch, and import all that a worker consists of. Returns what runs it.

    gevent patches before anything is imported that would keep what is patched.
    """
    forks = Forks(f"rpccluster: child of {assignment.name} [{assignment.options.proc_name}]")
    forks.add(lambda: _leave_to_parent(assignment))
    forks.add(_receive_what_is_ignored)
    system.make_room_for(assignment.options.worker_connections)
    _patch()
    _receive_what_is_ignored()
    _load_ourselves()
    return lambda: _run(assignment, forks)


def _run(assignment: Assignment[RPCPart], forks: Forks) -> int:
    """Be a worker until it is over. Returns the exit code; a child that the service has forked comes back here, too."""
    code = _serve(assignment, forks)
    return 0 if forks.is_child else code


def _serve(assignment: Assignment[RPCPart], forks: Forks) -> int:
    try:
        relay = LogRelay(gevent.get_hub())
        forks.add(relay.forget)
        server = _boot(assignment, forks)
    except BaseException as error:
        return tell_boot_failed(assignment, error)
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


def _leave_to_parent(assignment: Assignment[RPCPart]) -> None:
    """In a forked child: let go of all that the master has given this worker."""
    part = assignment.part
    assignment.channel.close()
    part.connections.close()
    for listener in part.listeners:
        listener.close()
    os.close(part.accept_lock)
    assignment.scoreboard.leave()


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
    import rpccluster.demo
    import rpccluster.worker.process.service_signals
    import rpccluster.worker.server
    import rpccluster.worker.service.loading

    del rpccluster
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


def _receive_what_is_ignored() -> None:
    """Take the signals and do nothing: what is ignored would be so in each program that the service runs, too.

    By libev's handler, which blocks the others meanwhile. Those of Python are run on faulthandler's small stack, six
    at once overflow it.
    """
    loop = gevent.get_hub().loop
    if loop.default:  # not in a child that a native thread has forked
        for signum in IGNORED:
            loop.signal(signum, ref=False).start(_do_nothing)


def _do_nothing() -> None:
    pass


def _boot(assignment: Assignment[RPCPart], forks: Forks):  # type: ignore[no-untyped-def]  # Server is imported when gevent has patched
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
