"""Leads what a plugin writes to its master, line by line. Runs in the plugin's process, before its code.

Owns stdin, stdout and stderr: nothing to read, and one pipe for all that is written. The plugin's log goes there, too,
so that it is beside its prints, in the plugin's own log file and in ``plugin tail``, and no log file need be reopened
here. If the pipe is full, prints wait, and a line of the log waits for a second; after that it goes with the next one.
"""

from __future__ import annotations

import faulthandler
import io
import os
import sys

from rpccluster import system
from rpccluster.log import LogFiles, set_up_logging
from rpccluster.log.lines import lost_lines, output_formatter
from rpccluster.log.outlet import Outlet

__all__ = ["PatientOutlet", "lead_log", "lead_output"]

_STDIN, _STDOUT, _STDERR = range(3)
_LINE_SECONDS = 1.0


class PatientOutlet(Outlet):
    """Gives the reader a second for each line: nothing here flushes what waits, and the next line may be far off."""

    def write(self, line: bytes) -> None:
        super().write(line)
        if self.is_waiting:
            self.drain(_LINE_SECONDS)


def lead_output(output: int) -> None:
    """Make the pipe ``output`` stdout and stderr, and close it; stdin is empty."""
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, _STDIN)
    os.dup2(output, _STDOUT)
    os.dup2(output, _STDERR)
    for descriptor in (nothing, output):
        if descriptor > _STDERR:
            os.close(descriptor)


def lead_log(logs: LogFiles, level: str) -> None:
    """Let Python's own streams, the log and stacks lead to stdout and stderr as they are now.

    The log's lines name neither time nor pid: the master adds both to each line of output.
    """
    sys.stdin = open(_STDIN, closefd=False)
    sys.stdout = sys.__stdout__ = _stream(_STDOUT)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(_STDERR)  # type: ignore[misc]
    logs.close()
    logs.log_path = logs.access_path = ""
    logs.open()
    logs.outlet = PatientOutlet(logs.log_descriptor, lost_lines)
    set_up_logging(logs, level, output_formatter)
    faulthandler.enable(_STDERR)
    faulthandler.register(system.TELL_SIGNAL, _STDERR, all_threads=True)


def _stream(descriptor: int) -> io.TextIOWrapper:
    """Open ``descriptor`` for writing; each line leaves at once, and no text fails."""
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
