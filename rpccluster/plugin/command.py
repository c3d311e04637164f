"""Turns the process of a plugin into its command. Runs in the forked child, and ends with the exec.

The program is born as systemd would start it: signals at their defaults and none blocked, and of descriptors nothing
but stdin, stdout, stderr and its own listeners from 3 on (sd_listen_fds(3)).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace

from rpccluster import system
from rpccluster.child.assignment import Assignment, PluginPart
from rpccluster.child.life import tell_boot_failed
from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.errors import PluginNotLoaded
from rpccluster.ipc.channel import Channel

__all__ = ["place", "run"]

_FIRST_LISTENER = 3  # SD_LISTEN_FDS_START


def run(assignment: Assignment[PluginPart], options: PluginOptions) -> int:
    """Execute the command. Returns an exit code only if that fails, which the master is told."""
    part = assignment.part
    os.environ.update(_notices(part, options))
    if part.listeners:
        numbers = [listener.fileno() for listener in part.listeners]
        assignment = _without_low_channel(assignment, _FIRST_LISTENER + len(numbers))
        place(numbers)
        os.environ.update(_listening(part))
    system.let_exec_close_all_but(range(_FIRST_LISTENER + len(part.listeners)))
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):  # some are the C library's
            signal.signal(signum, signal.SIG_DFL)
    try:
        os.execvpe(options.command[0], options.command, os.environ)
    except (OSError, ValueError) as error:
        return tell_boot_failed(assignment, _cannot_run(options.command[0], error))


def _notices(part: PluginPart, options: PluginOptions) -> dict[str, str]:
    """Return the variables of sd_notify(3) and sd_watchdog_enabled(3)."""
    variables = {}
    if part.notify:
        variables["NOTIFY_SOCKET"] = part.notify
        if options.timeout:
            variables.update(WATCHDOG_USEC=str(int(options.timeout * 1e6)), WATCHDOG_PID=str(os.getpid()))
    return variables


def _listening(part: PluginPart) -> dict[str, str]:
    """Return the variables of sd_listen_fds(3)."""
    return {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(part.listeners)),
        "LISTEN_FDNAMES": ":".join(part.listener_names),
    }


def place(descriptors: Sequence[int], first: int = _FIRST_LISTENER) -> None:
    """Copy ``descriptors`` to the numbers from ``first`` on, for the program to inherit; what was there is closed."""
    beyond = first + len(descriptors)
    copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, beyond) for descriptor in descriptors]
    for number, copy in enumerate(copies, first):
        os.dup2(copy, number)
        os.close(copy)


def _without_low_channel(assignment: Assignment[PluginPart], beyond: int) -> Assignment[PluginPart]:
    """Return ``assignment`` with its channel under a number from ``beyond`` on."""
    moved = fcntl.fcntl(assignment.channel.fileno(), fcntl.F_DUPFD_CLOEXEC, beyond)
    return replace(assignment, channel=Channel(socket.socket(fileno=moved)))


def _cannot_run(program: str, error: Exception) -> PluginNotLoaded:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    number = getattr(error, "errno", None)
    if number == errno.ENOEXEC:
        reason = f"{reason}; a script begins with a line such as #!/bin/sh"
    elif number == errno.ENOENT and os.path.exists(program):
        reason = f"{reason}: what its first line names, or the linker that it needs"
    return PluginNotLoaded(f"cannot run the command {program!r}: {reason}")
