"""Puts a master together from a configuration. Runs in the process that becomes the master.

The one place that knows both sides: it gives the master the function that makes a forked process a child of whatever
kind (`rpccluster.assembly.entries`).
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial

import rpccluster
from rpccluster import system
from rpccluster.assembly.entries import load as load_kind
from rpccluster.assembly.preload import preload
from rpccluster.child.life import live
from rpccluster.child.own_code import OwnCode
from rpccluster.config import Configuration, Machine, Options, Sources, load
from rpccluster.config.accounts import identity_of
from rpccluster.config.changes.changing import divided, with_values
from rpccluster.config.kept_queues import are_in_a_file
from rpccluster.control_path import socket_name
from rpccluster.errors import EXIT_FAULT, ConfigError, StartError
from rpccluster.ipc.fdpass import memory_file
from rpccluster.leading.page import LeadPage, use_lead_page
from rpccluster.log import LogFiles, logger, say, set_format, set_up_logging
from rpccluster.master.cluster import Cluster, is_led_whole
from rpccluster.master.counts import Counts
from rpccluster.master.history import History, history_path, read_history, values_of
from rpccluster.master.kinds.rpc import RPC
from rpccluster.master.parts import Parts, Start
from rpccluster.master.resources.daemonize import StartReport, daemonize
from rpccluster.master.resources.default_control import open_default_control
from rpccluster.master.resources.listeners import Listener, close_listeners, open_control_listener, open_listeners
from rpccluster.master.resources.logs import open_logs
from rpccluster.master.resources.passed import warn_of_unnamed
from rpccluster.master.resources.pidfile import Pidfile
from rpccluster.master.resources.plugin_listeners import all_of, open_plugin_listeners
from rpccluster.master.resources.warden import Warden
from rpccluster.master.signals import SignalInbox
from rpccluster.master.supervisor import Supervisor
from rpccluster.master.upgrade.inherited import LEAD, Inheritance, LeftSettings
from rpccluster.master.upgrade.starting import CommandLine
from rpccluster.system.processes.identity import Identity
from rpccluster.system.processes.launch import interpreter
from rpccluster.system.replacing import put_content

__all__ = ["serve"]

_TEMPORARY = ("TMPDIR", "TEMP", "TMP")


def serve(sources: Sources, arguments: list[str]) -> int:
    """Run a cluster until it ends. Returns the exit code. Raises `StartError` before a daemon has detached."""
    system.occupy_standard_descriptors()
    command = CommandLine(arguments, sources.start_folder, interpreter(sources.start_folder))
    activation = system.Activation.take()  # before it goes to the background with another pid
    inheritance = Inheritance.from_environment()
    activation = inheritance.activation if inheritance else activation
    configuration = load(sources, Machine())
    if inheritance and inheritance.settings:
        configuration = _as_before(configuration, inheritance.settings)
    report = daemonize() if configuration.options.daemonize and inheritance is None else StartReport()
    try:
        inbox = SignalInbox()  # before the pidfile shows our pid
        start = Start(command, report, inbox, inheritance, activation=activation)
        supervisor = _assemble(configuration, start)
    except (StartError, OSError) as error:
        exit_code = error.exit_code if isinstance(error, StartError) else EXIT_FAULT
        prefix = "" if isinstance(error, ConfigError) else "rpccluster: "
        for line in str(error).splitlines():
            say(f"{prefix}{line}")
        report.send(exit_code)
        return exit_code
    return supervisor.run()


def _as_before(configuration: Configuration, left: LeftSettings) -> Configuration:
    """Return ``configuration`` with the settings of before the upgrade, and with what commands had set."""
    configuration = configuration.with_settings(left.given.texts)
    sections = configuration.sections()
    changes = {name: text for name, text in left.commanded.items() if divided(name)[0] in sections}
    try:
        return with_values(configuration, changes, Machine())
    except ConfigError as error:
        say(f"rpccluster: values that were set are lost: {error}")
        return configuration


def _history(configuration: Configuration, left: LeftSettings | None) -> History:
    """Return the history of the versions, in which a start has its number. A file that cannot be used is told."""
    path = history_path(configuration)
    if left is not None:
        return replace(left.history, path=path)
    history = History(path)
    try:
        history = read_history(path)
        if history.number and path is not None:
            time = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
            history = history.with_start(time, os.getuid(), values_of(configuration))
            put_content(path, history.encoded())
    except (OSError, ValueError) as error:
        logger.warning("Cannot use the history of the versions, %s: %s", path, error)
    return history


def _assemble(configuration: Configuration, start: Start) -> Supervisor:
    """Acquire everything that a master holds, the pidfile's lock first, and make the supervisor.

    Raises `StartError` or OSError, and leaves nothing behind then.
    """
    options, inheritance = configuration.options, start.inheritance
    with contextlib.ExitStack() as undo:
        pidfile = _pidfile(options, inheritance)
        if pidfile and not (inheritance and pidfile is inheritance.pidfile):
            undo.callback(pidfile.clear)
        logs = open_logs(options)
        set_format(options.log_format)
        set_up_logging(logs, options.log_level)
        sockets = _open_sockets(configuration, inheritance, start.activation)
        held = inheritance.owned() if inheritance else []
        undo.callback(close_listeners, [each for each in sockets.all() if each not in held], is_last=True)
        start = replace(start, pidfile=pidfile, control=sockets.control)
        supervisor = _make_supervisor(configuration, start, logs, sockets)
        undo.pop_all()
    return supervisor


def _make_supervisor(configuration: Configuration, start: Start, logs: LogFiles, sockets: _Sockets) -> Supervisor:
    operating_system = system.System()
    warden = Warden(operating_system, configuration.options, logs)
    warden.start()  # before there is anything else that it would keep in memory
    preload(has_queues=are_in_a_file(configuration))  # imported late: a faulty start does not need it
    own_code = OwnCode(rpccluster)
    own_code.answer_for_it()
    _tell_of_start(configuration.options, logs, sockets.listeners, is_new=start.inheritance is None)
    warn_of_unnamed(start.activation, configuration.options.bind)
    left = start.inheritance.settings if start.inheritance else None
    history = _history(configuration, left)
    cluster = Cluster(
        configuration,
        generation=start.inheritance.generation + 1 if start.inheritance else 1,
        listeners=sockets.listeners,
        logs=logs,
        started_at=operating_system.monotonic(),
        activation=start.activation,
        plugin_listeners=sockets.of_plugins,
        settings_version=left.given.number if left else max(1, history.number),
        history=history,
        lead=_lead_page(start.inheritance),
        counts=Counts.begin(start.inheritance.memories if start.inheritance else {}),
    )
    entry = partial(live, load=partial(load_kind, start.command.folder))
    return Supervisor(Parts(operating_system, cluster, RPC(own_code), entry, replace(start, warden=warden)))


def _lead_page(inheritance: Inheritance | None) -> LeadPage:
    """Return the page of the lead, which all masters of one line of upgrades have, and let every process have it."""
    inherited = inheritance.memories.get(LEAD) if inheritance else None
    page = LeadPage(memory_file(name=LEAD) if inherited is None else inherited)
    use_lead_page(page)
    return page


def _tell_of_start(options: Options, logs: LogFiles, listeners: list[Listener], *, is_new: bool) -> None:
    """Log the start, and print where the log is, if it is a file and no master has served here before."""
    logger.info("Starting rpccluster with pid: %d", os.getpid())
    _tell_private_folder(identity_of(options.user, options.group))
    if logs.is_file and is_new:
        addresses = ", ".join(str(listener.actual) for listener in listeners)
        say(f"rpccluster: {f'listening at {addresses}, ' if addresses else ''}logging to {logs.log_path}")


def _pidfile(options: Options, inheritance: Inheritance | None) -> Pidfile | None:
    """Lock the pidfile before anything else is touched. A new master writes its pid only when it takes over."""
    if not options.pidfile:
        return None
    if inheritance and inheritance.pidfile and inheritance.pidfile.path == options.pidfile:
        inheritance.pidfile.is_single = options.single_instance
        return inheritance.pidfile
    pidfile = Pidfile.acquire(options.pidfile, is_single=options.single_instance)
    if inheritance is None:
        pidfile.write(os.getpid())
    return pidfile


@dataclass
class _Sockets:
    """The sockets that a master listens at."""

    listeners: list[Listener] = field(default_factory=list)
    of_plugins: dict[str, list[Listener]] = field(default_factory=dict)
    control: Listener | None = None

    def all(self) -> list[Listener]:
        return [*self.listeners, *all_of(self.of_plugins), *([self.control] if self.control else [])]


def _open_sockets(
    configuration: Configuration, inheritance: Inheritance | None, activation: system.Activation
) -> _Sockets:
    """Open the listeners and the control socket. Raises `StartError` with every fault, and opens nothing then."""
    options = configuration.options
    inherited = inheritance.listeners if inheritance else []
    held = inheritance.owned() if inheritance else []
    sockets = _Sockets()
    faults: list[str] = []
    try:
        owner = identity_of(options.user, options.group)
        sockets.listeners = open_listeners(options, owner, inherited, configuration.fault, activation)
        if is_led_whole(configuration) and not inherited:  # it opens them again when it leads
            close_listeners(sockets.listeners, is_last=True)
            sockets.listeners = []
    except StartError as error:
        faults.append(str(error))
    try:
        sockets.of_plugins = open_plugin_listeners(configuration, inheritance.plugin_listeners if inheritance else {})
    except StartError as error:
        faults.append(str(error))
    try:
        sockets.control = _control(configuration, inheritance)
    except StartError as error:
        faults.append(configuration.fault("control_socket", str(error)))
    if faults:
        close_listeners([each for each in sockets.all() if each not in held], is_last=True)
        raise ConfigError(faults)
    return sockets


def _control(configuration: Configuration, inheritance: Inheritance | None) -> Listener | None:
    path = configuration.options.control_socket
    present = inheritance.control if inheritance else None
    if path and present and str(present.wanted) == f"unix://{path}":
        return present
    if path:
        return open_control_listener(path)
    if configuration.sets("control_socket"):  # to nothing
        return None
    name = socket_name(configuration.options.proc_name, configuration.sources.identity)
    return open_default_control(name, present)


def _tell_private_folder(identity: Identity | None) -> None:
    """Log if the workers' user cannot write the folder for temporary files."""
    for variable in _TEMPORARY if identity is not None and identity.uid != os.geteuid() else ():
        folder = os.environ.get(variable)
        if folder and identity is not None and not identity.may_write(folder):
            name = identity.name or identity.uid
            logger.warning("%s is %s, where %s, the user of the workers, cannot make files", variable, folder, name)
