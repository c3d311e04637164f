"""Prepares a forked child before any code of its kind runs. Knows no kind, and no gevent; runs in the child.

A fork copies the whole master: its signal handlers, sockets, log, environment and rights. Each step below depends on
those before it. Descriptors are closed first: a copy would keep a dropped address open, and callers would wait there
for ever. Signals are blocked until their handlers are set (`rpccluster.system.System.fork`). The kind's code is loaded
while the process still has the master's rights, because the user that it becomes may be unable to read rpccluster's
files or Python's. Death with the parent comes last, since the kernel clears it when the ids change.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal

from rpccluster import system
from rpccluster.child.assignment import Assignment, Load, Run
from rpccluster.config.accounts import identity_of
from rpccluster.config.sections.cluster import Options
from rpccluster.log import set_format, set_up_logging
from rpccluster.system.processes.descendants import put_mark
from rpccluster.system.processes.identity import become
from rpccluster.system.processes.launch import enter

__all__ = ["IGNORED", "prepare"]

#: A pkill by name hits children, too; the master passes these signals' meaning on to them. It opens new log files for
#: USR1, for example, which a child may have no right to open.
IGNORED = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)

_set_handler = signal.signal  # the original, before gevent and the worker replace it


def prepare(assignment: Assignment, load: Load) -> Run:
    """Make this process the child of ``assignment``. Returns the result of ``load``. Raises any error of a step."""
    _let_go_of_the_masters(assignment)
    _set_signals()
    system.forget_what_is_ours()
    with contextlib.suppress(PermissionError):  # a session leader keeps its group
        os.setpgid(0, 0)
    system.set_title(assignment.title)
    if assignment.mark:
        put_mark(assignment.mark)
    _log(assignment)
    if assignment.cpus:
        system.pin(assignment.cpus)
    run = load(assignment)
    system.keep_out_of_collections()
    _take_place(assignment.options)
    system.die_with_parent(assignment.master_pid)
    return run


def _let_go_of_the_masters(assignment: Assignment) -> None:
    """Close the master's descriptors. Its objects stay, in frames to which this child never returns."""
    signal.set_wakeup_fd(-1)
    system.close_all_but(assignment.descriptors())


def _set_signals() -> None:
    """Give the signals that the master handles their default meaning, or none."""
    for signum in IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    for signum in (signal.SIGINT, signal.SIGCHLD, signal.SIGTERM, signal.SIGCONT):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, _end_at_once)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _end_at_once(signum: int, frame: object) -> None:
    """Handle QUIT: end the child as INT does, at once and without a core dump."""
    _set_handler(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def _log(assignment: Assignment) -> None:
    """Send the child's lines to its log, and its stack when it crashes or hangs."""
    logs = assignment.logs
    set_format(assignment.options.log_format)
    set_up_logging(logs, assignment.options.log_level)
    faulthandler.enable(logs.log_descriptor)
    faulthandler.register(system.TELL_SIGNAL, logs.log_descriptor, all_threads=False)


def _take_place(options: Options) -> None:
    """Take on the identity, umask and folder of ``options``. Raises OSError, or `StartError` for an unknown account."""
    identity = identity_of(options.user, options.group)
    if identity is not None:
        become(identity)
    if options.umask is not None:
        os.umask(options.umask)
    if options.chdir:
        enter(options.chdir)
