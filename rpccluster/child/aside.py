"""Runs a function in a forked process, for one that must not wait: a write to a disk may take long. Runs beside the
master, which has forked it.

The process has nothing of its parent's but the end of a pipe, on which it tells the result. It outlives its parent: a
kill of that one never leaves a write half done.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NoReturn

from rpccluster.failure import error_text
from rpccluster.system import close_all_but, occupy_standard_descriptors, set_title
from rpccluster.system.processes.process import Work

__all__ = ["work_aside"]

_KEPT_SIGNALS = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE}
_KEPT_SIGNALS |= {signal.SIGILL, signal.SIGSEGV, signal.SIGTRAP}


def work_aside(work: Work, result: int) -> NoReturn:
    """Do ``work`` in a newly forked process, write what it returns and a line end to ``result``, and end."""
    try:
        signal.set_wakeup_fd(-1)
        for signum in signal.valid_signals() - _KEPT_SIGNALS:
            signal.signal(signum, signal.SIG_IGN)
        close_all_but({result}, keeps_inherited=False)
        occupy_standard_descriptors()
        os.setsid()
        set_title("rpccluster: writer")
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        text = work()
    except BaseException as error:
        text = error_text(error)
    with contextlib.suppress(OSError):
        view = memoryview(f"{text}\n".encode(errors="replace"))
        while view:
            view = view[os.write(result, view) :]
    os._exit(0)
