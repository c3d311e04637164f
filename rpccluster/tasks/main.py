"""The process of a pool from the loading of its code to its end. Runs in the forked child; nothing here uses gevent.

It imports what tasks may run, says that it is ready, and then runs one task at a time, as they come from its socket. It
ends when that is closed, when its master says so by a cell, or after its last task.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import traceback
from typing import cast

from rpccluster import system
from rpccluster.child.assignment import Assignment, Run, TaskPart
from rpccluster.child.life import EXIT_CRASHED, tell_boot_failed
from rpccluster.config.sections.pool import PoolOptions
from rpccluster.errors import TasksNotLoaded
from rpccluster.ipc.messages import Ready, WantsToRetire
from rpccluster.ipc.scoreboard import TaskCell
from rpccluster.log import logger
from rpccluster.system.processes.descendants import MARK_VARIABLE
from rpccluster.tasks.code import Code
from rpccluster.tasks.following import Following
from rpccluster.tasks.limits import Bell, MemoryStop
from rpccluster.tasks.link import Link
from rpccluster.tasks.running import Runner

__all__ = ["load"]

_LEAVES, _CONDEMNED = int(TaskCell.LEAVES), int(TaskCell.CONDEMNED)
_MOST_TASKS, _TASKS = int(TaskCell.MOST_TASKS), int(TaskCell.TASKS)

_KEPT_BYTES = 8 << 20  # of freed memory: a task with large values is followed by others with such


def load(assignment: Assignment[TaskPart]) -> Run:
    """Set the niceness, while the process has its master's rights. Returns the function that runs the process."""
    options = cast(PoolOptions, assignment.options)
    if options.nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, options.nice)
        except OSError as error:
            raise TasksNotLoaded(f"cannot set nice to {options.nice}: {error.strerror}") from error
    return lambda: _run(assignment, options)


def _run(assignment: Assignment[TaskPart], options: PoolOptions) -> int:
    try:
        os.environ.update({name: value for name, value in options.env.items() if name != MARK_VARIABLE})
        with contextlib.suppress(OSError):  # it may be closed
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        system.keep_freed_memory(min(_KEPT_BYTES, options.max_memory // 16 or _KEPT_BYTES))
        code = Code(assignment.part.name, options, assignment.settings)
        link = _link(assignment)
        following = Following(assignment, code)
        runner = Runner(code, link, assignment.row, Bell(assignment.part.timer), MemoryStop(options.max_memory))
    except BaseException as error:
        return tell_boot_failed(assignment, error)
    assignment.channel.send(Ready([]))
    try:
        _serve(link, runner, following, assignment)
        atexit._run_exitfuncs()  # those of the tasks; the master has none
    except BaseException:
        traceback.print_exc()
        return EXIT_CRASHED
    return 0


def _link(assignment: Assignment[TaskPart]) -> Link:
    part = assignment.part
    part.socket.setblocking(True)
    link = Link(part.socket, part.tickets)
    for close in (assignment.channel.close, part.timer.close, assignment.scoreboard.leave):
        link.leave_to_parent(close)
    return link


def _serve(link: Link, runner: Runner, following: Following, assignment: Assignment[TaskPart]) -> None:
    cells = assignment.row.cells
    for task in link.tasks():
        if cells[_LEAVES]:
            return
        if following.is_behind():
            try:
                following.catch_up()
            except BaseException:
                logger.error("settings_changed failed", exc_info=True)
                assignment.channel.send(WantsToRetire("settings_changed failed"))
                return
        runner.run(task)
        if cells[_LEAVES]:
            return
        if cells[_CONDEMNED] == task.number:  # that task may have ended just in time
            assignment.channel.send(WantsToRetire("limit"))
            return
        if 0 < cells[_MOST_TASKS] <= cells[_TASKS]:
            assignment.channel.send(WantsToRetire("max_tasks"))
            return
