"""Calls a plugin's function, from its import to the end of the process. Runs in the forked child.

The end is Python's own: threads that are no daemons are waited for, and what atexit(3) knows is called. The exit status
is 0 for a return, 1 for an exception, and that of a SystemExit.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import traceback
from typing import Any, Callable

from rpccluster.child.assignment import Assignment, PluginPart
from rpccluster.child.life import EXIT_BOOT_FAILED, EXIT_CRASHED, tell_boot_failed
from rpccluster.child.settings import ServiceSettings
from rpccluster.child.users_code import find, own_traceback, put_on_path, shut_hint
from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.errors import PluginNotLoaded, SettingsRefused
from rpccluster.ipc.messages import BootFailed, Ready
from rpccluster.plugin.fitting import Fitted, fitted
from rpccluster.plugin.handle import Plugin
from rpccluster.plugin.stop_signal import obey
from rpccluster.plugin.voting import Voting

__all__ = ["find_function", "run"]


def run(assignment: Assignment[PluginPart], options: PluginOptions) -> int:
    """Import the function, call it, and return the exit status of the process."""
    with contextlib.suppress(OSError):  # nobody can change what KILL does
        signal.signal(options.stop_signal, signal.SIG_DFL)  # it ends the import; some are ignored until here
    try:
        settings = ServiceSettings(assignment.settings)
        voting = Voting(settings, assignment.channel, assignment.row)
        plugin = _plugin(assignment, voting)
        call = _load(options, plugin, settings)
    except BaseException as error:
        return tell_boot_failed(assignment, error)

    def begin() -> None:
        """Say that it is called, and call it; the stop signal may come in between."""
        obey(options.stop_signal, plugin.stopping if call.takes_plugin else None)
        plugin.alive()
        run = call if call.run_of is None else call.run_of(_made(call, settings, voting))
        if options.ready == "started":
            plugin.ready()
        run()

    voting.start()
    status = _status_of(begin)
    return max(status, _status_of(_end))


def _made(call: Fitted, settings: ServiceSettings, voting: Voting) -> Any:
    """Make the instance of a plugin's class. Ends the process if it does not take the settings in force."""
    made = call.call()
    settings.take_instance(made)
    try:
        settings.ask()
    except SettingsRefused as error:
        voting.say(BootFailed("service", str(error)))
        raise SystemExit(EXIT_BOOT_FAILED) from error
    return made


def _plugin(assignment: Assignment[PluginPart], voting: Voting) -> Plugin:
    part = assignment.part
    listeners = [socket.socket(fileno=listener.detach()) for listener in part.listeners]  # without the master's timeout
    plugin = Plugin(
        part.name,
        assignment.slot,
        listeners,
        assignment.row,
        tell_ready=lambda: voting.say(Ready([])),
        wait_for_change=voting.changes.wait,
    )

    def leave_to_parent() -> None:
        voting.leave_to_parent()
        voting.changes.leave_to_parent()
        plugin.stopping.leave_to_parent()

    os.register_at_fork(after_in_child=leave_to_parent)
    return plugin


def _load(options: PluginOptions, plugin: Plugin, settings: ServiceSettings) -> Fitted:
    """Import what the section names, and fit it to its arguments. Raises `PluginNotLoaded`, and `SettingsRefused`."""
    sys.argv[:] = [options.run]
    folders = put_on_path(options.pythonpath)
    try:
        found = find_function(options)
    except BaseException as error:  # a SystemExit at import is a fault, too
        text = f"cannot load {options.run!r}{shut_hint(folders)}: {own_traceback(error, __file__)}"
        raise PluginNotLoaded(text) from error
    settings.take_declaration(options.run, found)
    settings.ask()
    return fitted(options.run, found, options.args, plugin)


def find_function(options: PluginOptions) -> Any:
    """Import what ``options`` name. Raises all that its code raises."""
    try:
        return find(options.run)
    except ModuleNotFoundError as error:
        module = options.run.partition(":")[0]
        if not options.also_run or not f"{module}.".startswith(f"{error.name}."):
            raise
    return find(options.also_run)


def _status_of(call: Callable[[], Any]) -> int:
    """Call ``call``, and return what it makes the exit status."""
    try:
        call()
    except SystemExit as error:
        return _exit_status(error.code)
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals.get("__package__") == __package__:
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
        return EXIT_CRASHED
    return 0


def _exit_status(code: object) -> int:
    """Return the exit status that Python would give for a SystemExit with ``code``, and print what is none."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    with contextlib.suppress(Exception):
        print(code, file=sys.stderr)
    return 1


def _end() -> None:
    """End the interpreter as Python would: first the threads, then what is registered."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
    finally:
        atexit._run_exitfuncs()
