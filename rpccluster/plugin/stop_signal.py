"""What the stop signal does to a plugin's function: it sets ``stopping``, or ends the function by SystemExit.

The exception has to come up in the function itself, so that its ``finally`` blocks run. It would be lost in a greenlet
that some thread of a patched program is, and it would have a line of the log written twice if it came between a write
and its note. Runs in the plugin's process.
"""

from __future__ import annotations

import contextlib
import os
import signal
from _thread import start_new_thread  # imported before a plugin that uses gevent patches it
from time import sleep  # likewise
from types import FrameType

from rpccluster.log import outlet
from rpccluster.plugin.greenlets import present_greenlet, present_hub
from rpccluster.plugin.handle import Stopping

__all__ = ["obey"]

_MOMENT_SECONDS = 0.01


def obey(stop_signal: signal.Signals, stopping: Stopping | None) -> None:
    """Let ``stop_signal`` set ``stopping``, or, without it, raise SystemExit in the function, once."""

    def stop(signum: int, frame: FrameType | None) -> None:
        if stopping is not None:
            stopping.set()
        elif _is_in_log(frame):
            start_new_thread(_repeat, (signum,))
        else:
            signal.signal(signum, signal.SIG_IGN)  # what ends already ends in peace
            _exit_from_function()

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(OSError):  # nobody hears of a KILL
        signal.signal(stop_signal, stop)
    if stopping is not None:
        stopping.wake_by_signals()


def _exit_from_function() -> None:
    hub = present_hub()
    if hub is None or present_greenlet() is hub.parent:
        raise SystemExit
    hub.loop.run_callback(hub.parent.throw, SystemExit)


def _is_in_log(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == outlet.__name__:
            return True
        frame = frame.f_back
    return False


def _repeat(signum: int) -> None:
    sleep(_MOMENT_SECONDS)
    os.kill(os.getpid(), signum)
