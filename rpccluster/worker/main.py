"""An RPC worker from the loading of its code to its end. Runs in the forked child, and is the first to import gevent.

`rpccluster.child.prepare` has prepared the process. `rpccluster.worker.process` adapts it to the code of a service; the
modules beside this one serve. A process that serves methods of the package itself (`rpccluster.services`) is booted
here, too, with another way to make what it serves.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
from typing import TYPE_CHECKING, Callable

import gevent

from rpccluster import system
from rpccluster.child.assignment import Assignment, RPCPart, Run
from rpccluster.child.life import EXIT_CRASHED, tell_boot_failed
from rpccluster.child.settings import ServiceSettings
from rpccluster.log import logger
from rpccluster.worker.process.forks import Forks
from rpccluster.worker.process.log_relay import LogRelay
from rpccluster.worker.process.patches import go_on_whatever_fails, patch, receive_what_is_ignored

if TYPE_CHECKING:  # imported after gevent has patched
    from rpccluster.worker.parts import Served
    from rpccluster.worker.server import Server

__all__ = ["MakeServed", "load"]

#: Makes what a worker serves, once its process is patched. Raises any exception if it cannot.
MakeServed = Callable[[Assignment[RPCPart], ServiceSettings], "Served"]

LAST_LINES_SECONDS = 1.0  # for log handlers of the service, at the end

_OURSELVES = (
    "rpccluster.demo",
    "rpccluster.worker.process.service_signals",
    "rpccluster.worker.server",
    "rpccluster.worker.service.loading",
)


def load(assignment: Assignment[RPCPart], make: MakeServed | None = None) -> Run:
    """Patch the process and import all modules of a worker. Returns the function that runs the worker.

    ``make`` makes what it serves; None stands for the service that the options name. gevent patches before other
    modules could keep unpatched objects. All are imported while the process has the master's rights: the user that it
    becomes may be unable to read rpccluster's files or Python's.
    """
    forks = Forks(f"rpccluster: child of {assignment.name} [{assignment.options.proc_name}]")
    forks.add(lambda: _leave_to_parent(assignment))
    forks.add(receive_what_is_ignored)
    system.make_room_for(assignment.options.worker_connections)
    patch()
    receive_what_is_ignored()
    for name in _OURSELVES:
        importlib.import_module(name)
    go_on_whatever_fails(gevent.get_hub())
    return lambda: _run(assignment, forks, make or _load_service)


def _run(assignment: Assignment[RPCPart], forks: Forks, make: MakeServed) -> int:
    """Run the worker to its end. Returns the exit code; a child that the service has forked returns here, too."""
    code = _serve(assignment, forks, make)
    return 0 if forks.is_child else code


def _serve(assignment: Assignment[RPCPart], forks: Forks, make: MakeServed) -> int:
    try:
        relay = LogRelay(gevent.get_hub())
        forks.add(relay.forget)
        server = _boot(assignment, forks, make)
    except BaseException as error:
        return tell_boot_failed(assignment, error)
    if assignment.options.daemonize:
        assignment.logs.hold_output()
    forks.add(server.leave_to_parent)
    try:
        code = server.serve()
        atexit._run_exitfuncs()  # those of the service; the master has none
        relay.finish(LAST_LINES_SECONDS)
        return code
    except BaseException:
        if not forks.is_child:
            logger.critical("Worker crashed", exc_info=True)
        return EXIT_CRASHED


def _leave_to_parent(assignment: Assignment[RPCPart]) -> None:
    """Close, in a forked child, everything that the master has given this worker."""
    part = assignment.part
    assignment.channel.close()
    part.connections.close()
    if part.copies is not None:
        part.copies.close()
    for listener in part.listeners:
        listener.close()
    part.stall_timer.close()
    for descriptor in (part.accept_lock, part.memory, part.ledger, part.metrics):
        if descriptor >= 0:
            os.close(descriptor)
    assignment.scoreboard.leave()


def _boot(assignment: Assignment[RPCPart], forks: Forks, make: MakeServed) -> Server:
    """Make what is served, and its server; a child that is forked meanwhile ends here."""
    from rpccluster.worker.process.service_signals import ServiceSignals
    from rpccluster.worker.server import Server

    signals = ServiceSignals(gevent.get_hub().loop, forks)
    signals.take_over()
    settings = ServiceSettings(assignment.settings)
    served = make(assignment, settings)
    forks.end_child()
    server = Server(assignment, signals, served, settings)
    forks.end_child()
    return server


def _load_service(assignment: Assignment[RPCPart], settings: ServiceSettings) -> Served:
    """Import and make the service of the configuration."""
    from rpccluster.worker.parts import Served
    from rpccluster.worker.service.loading import code_files, load_service

    known = frozenset(sys.modules)
    service = load_service(assignment.options.service, assignment.options.pythonpath, settings)
    return Served(service, code_files(known) if assignment.options.reload_code else ())
