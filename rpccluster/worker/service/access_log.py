"""The access log: one line for each call. Runs in the worker; costs nothing when it is off.

A line has time, pid, caller, method, milliseconds, and "ok" or the error. It is written by descriptor, like the log.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Callable

from rpccluster.failure import error_text
from rpccluster.log import escaped
from rpccluster.log.lines import access_line
from rpccluster.log.outlet import Outlet
from rpccluster.worker.current import CallTimedOut, present_call
from rpccluster.worker.service.later import Parked

__all__ = ["logged"]


def logged(function: Callable[..., Any], outlet: Outlet) -> Callable[..., Any]:
    """Wrap ``function`` to write a line for each call to ``outlet``."""

    def observed(*params: Any) -> Any:
        began, call = time.monotonic(), present_call()  # taken now: at its end the call may have been answered already
        outcome = "ok"
        try:
            return function(*params)
        except Parked as parked:
            call = None
            parked.tell_too(partial(_write, outlet, began))
            raise
        except BaseException as error:
            told = TimeoutError(*error.args) if type(error) is CallTimedOut else error  # as the caller sees it
            outcome = escaped(error_text(told))
            raise
        finally:
            if call is not None:
                _write(outlet, began, call.sender.peer, str(call.message[-2]), outcome)

    return observed


def _write(outlet: Outlet, began: float, peer: str, method: str, outcome: str) -> None:
    """Write the line of a call that began at ``began`` (monotonic seconds)."""
    line = access_line(peer, escaped(method), (time.monotonic() - began) * 1000, outcome)
    outlet.write(f"{line}\n".encode("utf-8", "backslashreplace"))
