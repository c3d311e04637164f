"""The process of a plugin from the loading of our code to its end. Runs in the forked child.

A plugin is a function, which this process calls, or a command, which this process becomes.
"""

from __future__ import annotations

import os
from typing import cast

from rpccluster.child.assignment import Assignment, PluginPart, Run
from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.errors import PluginNotLoaded
from rpccluster.plugin import command, function
from rpccluster.plugin.output import lead_log, lead_output
from rpccluster.system.processes.descendants import MARK_VARIABLE

__all__ = ["load"]


def load(assignment: Assignment[PluginPart]) -> Run:
    """Lead the output to the master, while the process has its rights. Returns the function that runs the plugin."""
    options = cast(PluginOptions, assignment.options)
    _set_niceness(options.nice)
    lead_output(assignment.part.output)
    lead_log(assignment.logs, options.log_level)
    run = command.run if options.command else function.run

    def live() -> int:
        os.environ.update({name: value for name, value in options.env.items() if name != MARK_VARIABLE})
        return run(assignment, options)

    return live


def _set_niceness(nice: int | None) -> None:
    """Set this process's niceness. Raises `PluginNotLoaded` if it may not."""
    if nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        except OSError as error:
            raise PluginNotLoaded(f"cannot set nice to {nice}: {error.strerror}") from error
