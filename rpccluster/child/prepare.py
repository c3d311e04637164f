"""Making a forked child decent before any code of its kind's runs. Knows no kind, and no gevent; runs in the child.

A fork copies the master whole: its signal handlers, sockets, log, environment and rights. The order below is fixed by
what needs what. Descriptors go first, since a copy that lives on keeps a dropped address open: callers would wait there
for ever. Signals are blocked until their meaning is set (`rpccluster.system.System.fork`). A kind's code is loaded in
the middle: the process still has the master's rights then, and the user it becomes need not be able to read our files,
or Python's. Death with the parent comes last, since the kernel forgets it when the ids change.
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
from rpccluster.log import set_up_logging
from rpccluster.system.identity import become
from rpccluster.system.launch import enter

__all__ = ["IGNORED", "prepare"]

#: A pkill by name hits children, too; what these signals mean reaches them through the master.
IGNORED = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)


def prepare(assignment: Assignment, load: Load) -> Run:
    """Make this process what ``assignment`` says. Returns what ``load`` has returned. Raises what goes wrong."""
    _let_go_of_the_masters(assignment)
    set_signals()
    system.forget_what_is_ours()
    with contextlib.suppress(PermissionError):  # a session leader keeps its group
        os.setpgid(0, 0)
    system.set_title(assignment.title)
    _log(assignment)
    if assignment.cpus:
        system.pin(assignment.cpus)
    run = load(assignment)
    system.keep_out_of_collections()
    _take_place(assignment.options)
    system.die_with_parent(assignment.master_pid)
    return run


def _let_go_of_the_masters(assignment: Assignment) -> None:
    """The master's objects stay as they are, referred to by the frames that this child will never return to."""
    signal.set_wakeup_fd(-1)
    system.close_all_but(assignment.descriptors())


def set_signals() -> None:
    """What the master handles means what it means in any process, or nothing."""
    for signum in IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    for signum in (signal.SIGINT, signal.SIGCHLD, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, _end_at_once)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


_set_handler = signal.signal  # the original: others will take its place


def _end_at_once(signum: int, frame: object) -> None:
    """QUIT ends a child as INT does: at once, without a core dump."""
    _set_handler(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def _log(assignment: Assignment) -> None:
    """Its lines go to its log, and so does its stack when it crashes or is asked where it hangs."""
    logs = assignment.logs
    set_up_logging(logs, assignment.options.log_level)
    faulthandler.enable(logs.log_descriptor)
    faulthandler.register(system.TELL_SIGNAL, logs.log_descriptor, all_threads=False)


def _take_place(options: Options) -> None:
    """Become who it is to be, where it is to be. Raises OSError, or `StartError` for an account that is gone."""
    identity = identity_of(options.user, options.group)
    if identity is not None:
        become(identity)
    if options.umask is not None:
        os.umask(options.umask)
    if options.chdir:
        enter(options.chdir)
