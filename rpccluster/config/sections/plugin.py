"""The sections ``[plugin:NAME]``: every option of a supervised program or function. Any process.

Reads no file. The rest of `rpccluster.config`, the command line, etc/plugins.ini and the documentation follow this
table. `rpccluster.master.kinds` runs the processes.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rpccluster.address import Address
from rpccluster.config import process_values, values
from rpccluster.config.checks import (
    Complaint,
    Machine,
    UsedPath,
    check_account,
    check_addresses,
    check_cpus,
    check_folder,
    check_niceness,
    check_usable_paths,
)
from rpccluster.config.cpus import CPU_INHERITED, MOST_WORKERS, CPUChoice
from rpccluster.config.sections import cluster
from rpccluster.config.sections.option import Section, family, live, option
from rpccluster.config.sections.schedule import check_schedule, check_timezone

__all__ = ["PLUGIN", "PluginOptions", "complaints", "with_cluster"]

RESTARTS = ("always", "on-failure", "never")
READINESS = ("started", "notify")
OVERLAPS = ("none", "successor")


@dataclass(frozen=True)
class PluginOptions:
    """The options of one plugin, typed: sizes in bytes, durations in seconds, paths absolute or empty.

    `with_cluster` fills in what it has from ``[cluster]``.
    """

    run: str = option(
        process_values.RUN, "", "module:function or module:Class to call in a process of its own; or command"
    )
    command: tuple[str, ...] = option(
        process_values.COMMAND, (), "a program and its arguments: shell words, but no shell"
    )
    args: tuple[Any, ...] = option(  # none or one
        process_values.ARGUMENTS, (), "what the function is called with: a JSON list or object, or a string"
    )
    description: str = live(values.LINE, "", "what it is for; plugin list shows it")
    processes: int = live(values.integer(1, MOST_WORKERS), 1, "how many processes run it")
    autostart: bool = live(values.BOOLEAN, True, "start it with the cluster; false: by plugin start")

    restart: str = live(values.choice(*RESTARTS), "always", "when it ends, start it again: always, on-failure or never")
    restart_delay: float = live(
        values.DURATION, 1.0, "seconds from a start to the next; the first pause after failures, doubled by each more"
    )
    restart_delay_max: float = live(values.DURATION, 30.0, "the longest such pause in seconds; 0: none")
    essential: bool = live(values.BOOLEAN, False, "five failures within ten minutes stop the cluster")
    after: tuple[str, ...] = live(
        process_values.GROUPS, (), "groups and plugins that are ready before it starts, separated by commas"
    )
    ready: str = option(values.choice(*READINESS), "started", "started, or notify: when it says so itself")
    ready_timeout: float = live(values.DURATION, 30.0, "seconds after which a start that is not ready has failed")

    stop_signal: signal.Signals = option(  # noqa: RUF009 - it returns a field
        process_values.SIGNAL, signal.SIGTERM, "the signal that asks it to end"
    )
    stop_timeout: float = live(values.DURATION, 10.0, "seconds from that signal to its kill")
    timeout: float = live(values.DURATION, 0.0, "seconds without a sign of life after which it is killed; 0: never")
    max_memory: int = live(values.SIZE, 0, "resident memory past which it is replaced (K, M, G); 0: never")
    max_lifetime: float = live(values.DURATION, 0.0, "seconds after which it is replaced; 0: never")
    overlap: str = live(
        values.choice(*OVERLAPS), "none", "none: it has ended before the next starts; successor: that is ready first"
    )

    schedule: str = option(values.LINE, "", "five fields of cron: when it runs, to its end; empty: always")
    timezone: str = option(values.LINE, "", "of the schedule, such as Europe/Berlin; empty: the machine's")
    leader_only: bool = option(values.BOOLEAN, False, "run it only where the cluster leads")
    bind: tuple[Address, ...] = option(values.ADDRESSES, (), "addresses that it listens at, separated by commas")
    reload_signal: signal.Signals | None = option(  # noqa: RUF009 - it returns a field
        process_values.RELOAD_SIGNAL, None, "the signal that tells a command of new settings, or none"
    )

    user: str = option(values.ACCOUNT, "", "its account, name or number; empty: the cluster's")
    group: str = option(values.ACCOUNT, "", "its Unix group; empty: that of its user, or the cluster's")
    chdir: str = option(values.PATH, "", "the folder that it runs in; empty: the cluster's")
    umask: int | None = option(values.UMASK, None, "its umask in octal; empty: the cluster's")
    nice: int | None = option(process_values.NICE, None, "its niceness, -20 to 19; empty: the master's")
    cpu_affinity: CPUChoice = option(  # noqa: RUF009 - it returns a field
        process_values.CPUS_OR_CLUSTERS, CPU_INHERITED, "its CPUs: none, auto or a list; empty: the cluster's"
    )
    env: Mapping[str, str] = family(process_values.TEXT, "a variable of its environment")

    log_file: str = live(values.PATH, "", "file for what it writes to stdout and stderr; empty: the cluster's log")
    log_max_size: int = live(values.SIZE, 0, "bytes past which that file is rotated (K, M, G); 0: never")
    log_backups: int = live(values.integer(0, 1000), 5, "rotated files to keep")

    log_level: str = "info"
    log_format: str = "text"
    proc_name: str = "rpccluster"
    pythonpath: tuple[str, ...] = ()
    also_run: str = ""  # the module:function to call if there is no module that `run` names

    @property
    def graceful_timeout(self) -> float:
        """Seconds that a process which is told to end may take."""
        return self.stop_timeout


def with_cluster(options: PluginOptions, of_cluster: cluster.Options) -> PluginOptions:
    """Fill in what ``options`` do not say themselves and have from ``[cluster]``, for a process that starts now."""
    return replace(
        options,
        user=options.user or of_cluster.user,
        group=options.group or ("" if options.user else of_cluster.group),
        chdir=options.chdir or of_cluster.chdir,
        umask=of_cluster.umask if options.umask is None else options.umask,
        cpu_affinity=of_cluster.cpu_affinity if options.cpu_affinity == CPU_INHERITED else options.cpu_affinity,
        log_level=of_cluster.log_level,
        log_format=of_cluster.log_format,
        proc_name=of_cluster.proc_name,
        pythonpath=(*options.pythonpath, *of_cluster.pythonpath),
    )


def complaints(options: PluginOptions, machine: Machine, config_path: str | None = None) -> list[Complaint]:
    """Return every fault of ``options`` on ``machine``. ``config_path`` is not needed."""
    return [
        *_program(options),
        *_timing(options),
        *check_addresses("bind", options.bind),
        *check_account("user", options.user, machine.uid_of, machine, machine.euid),
        *check_account("group", options.group, machine.gid_of, machine, machine.egid),
        *check_cpus("cpu_affinity", options.cpu_affinity, machine),
        *check_folder("chdir", options.chdir),
        *check_niceness("nice", options.nice, machine),
        *_log(options),
    ]


def _program(options: PluginOptions) -> Iterator[Complaint]:
    if options.run and options.command:
        yield Complaint(("run", "command"), "found it beside command, expected one of them")
    elif options.run and options.reload_signal:
        problem = "found a signal for a function, expected none: it is told of settings without one"
        yield Complaint(("reload_signal",), problem, if_given=True)
    elif options.command and options.args:
        problem = "found a value beside command, expected none: a command holds its arguments"
        yield Complaint(("args",), problem, if_given=True)
    elif not options.run and not options.command:
        yield Complaint(("run", "command"), "found neither run nor command, expected one of them")


def _timing(options: PluginOptions) -> Iterator[Complaint]:
    if options.schedule:
        yield from check_schedule("schedule", options.schedule)
        yield from check_timezone("timezone", options.timezone)
        problem = "found it beside schedule, expected one of them: a run that has ended is not started again"
        yield Complaint(("restart",), problem, if_given=True)
    elif options.timezone:
        yield Complaint(("timezone",), "found it without schedule, expected both, or neither", if_given=True)


def _log(options: PluginOptions) -> Iterator[Complaint]:
    yield from check_usable_paths([UsedPath("log_file", options.log_file, False)] if options.log_file else [])
    if options.log_max_size and not options.log_file:
        problem = "found it without log_file, expected both: the cluster's log is not rotated"
        yield Complaint(("log_max_size",), problem, if_given=True)


PLUGIN = Section(
    "plugin", PluginOptions, complaints, is_named=True, reserved=process_values.GROUP_NAMES, makes_processes=True
)
