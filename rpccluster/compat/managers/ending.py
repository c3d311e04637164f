"""Ends a program's own keeper, and removes its folder, when the program has ended, in whatever way.

Runs in a process of its own, a fresh interpreter. Its stdin is a pipe whose other end the program has; a copy of that
in a process which the program has forked does not keep the keeper alive.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time

__all__ = ["main"]

_LOOK_SECONDS = 0.5
_END_SECONDS = 10.0


def main(pid: int, folder: str, program: int) -> None:
    """Wait for the end of ``program``, then end the process ``pid`` and remove ``folder``."""
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):  # from the terminal: the program decides
        signal.signal(signum, signal.SIG_IGN)
    begun_at = _begun_at(pid) or "gone"
    while os.getppid() == program and not select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
        pass
    for signum in (signal.SIGTERM, signal.SIGKILL):
        ends_at = time.monotonic() + _END_SECONDS
        with contextlib.suppress(ProcessLookupError):
            if _begun_at(pid) == begun_at:
                os.kill(pid, signum)
        while _begun_at(pid) == begun_at and time.monotonic() < ends_at:
            time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _begun_at(pid: int) -> str:
    """Return when the process ``pid`` began, since another one may have its number; "" if none runs. See proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, *fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else fields[18]
