"""The warden: a small process that ends what a master leaves behind, if that is killed. Runs in the warden.

It waits until the master's end of a socket is closed, then kills the process groups that stand in shared memory, and
all processes with a mark of that master's. After a graceful end there is nothing to kill, and it says no word. It has a
session of its own and ignores all signals, since those of a terminal or a pkill are meant for the master. It keeps the
master's user, because a program may have become root by set-uid, and holds nothing else of the master's: no listener,
no log, not the user's stdout of a daemon. `rpccluster.master.resources.warden` starts it.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from dataclasses import dataclass
from typing import NoReturn

from rpccluster import system
from rpccluster.ipc.group_table import GroupTable
from rpccluster.log import LogFiles, logger, set_up_logging
from rpccluster.system.processes.descendants import kill_group_of, kill_marked, living_groups, processes

__all__ = ["FAREWELL", "Post", "keep_watch", "kill_the_rest"]

#: The master sends it before it ends by itself: then the warden logs nothing.
FAREWELL = b"."

_MOST_SECONDS = 10.0  # for what cannot be killed at once, such as a process that waits for a disk
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5  # seconds between two looks
_CRASHES = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGTRAP}


@dataclass(frozen=True)
class Post:
    """Everything that a warden needs. ``line`` is its end of the socket.

    ``has_output`` says that it keeps stdout and stderr: the log is there.
    """

    master_pid: int
    title: str
    line: socket.socket
    groups: GroupTable
    logs: LogFiles
    has_output: bool


def keep_watch(post: Post) -> NoReturn:
    """Be the warden of a master, in a newly forked process, until both end."""
    try:
        _settle(post)
        was_told = bool(post.line.recv(len(FAREWELL)))
        if was_told:
            post.line.recv(len(FAREWELL))
        _end(post, was_told=was_told)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _settle(post: Post) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals() - _CRASHES - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    kept = {post.line.fileno(), *((1, 2) if post.has_output else ())}
    system.close_all_but(kept, keeps_inherited=False)
    system.occupy_standard_descriptors()
    system.set_title(post.title)
    system.keep_out_of_collections()


def _end(post: Post, *, was_told: bool) -> None:
    groups = post.groups.groups()
    kill_the_rest(post.groups)
    if not was_told and groups:
        _log(post, len(groups))


def _log(post: Post, number: int) -> None:
    logs = LogFiles(post.logs.log_path, "", post.logs.owner, post.logs.umask)
    try:
        logs.open()  # only now: it may have been reopened meanwhile
        set_up_logging(logs, "info")
        logger.critical("The master (pid: %d) is gone: killed its %d process groups", post.master_pid, number)
        logs.drain()
    except OSError:
        pass  # the work is done


def kill_the_rest(table: GroupTable) -> None:
    """Kill the groups of ``table``, and all processes with a mark of its master's, until none of them lives."""
    over = system.Deadline.after(_MOST_SECONDS)
    groups, token, pause = table.groups(), f"{table.token}.", _FIRST_PAUSE
    while not over.is_over():
        groups = [group for group in groups if kill_group_of(group.leader, group.started)]
        killed = kill_marked(processes(), lambda mark: mark.startswith(token))
        living = living_groups()
        groups = [group for group in groups if group.leader in living]
        if not killed and not groups:
            break
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
