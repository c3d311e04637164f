"""The access log: a line for each call. Runs in the worker; costs nothing when it is off.

A line: time, pid, caller, method, milliseconds, and "ok" or the error. Written by descriptor, like the log.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Callable

from rpccluster.log import escaped
from rpccluster.system import write
from rpccluster.worker.dispatch import error_text
from rpccluster.worker.runner import present_call

__all__ = ["logged"]


def logged(function: Callable[..., Any], descriptor: Callable[[], int | None]) -> Callable[..., Any]:
    """``function`` with a line for each call, to the file that ``descriptor`` tells."""

    def observed(*params: Any) -> Any:
        began = time.monotonic()
        outcome = "ok"
        try:
            return function(*params)
        except BaseException as error:
            outcome = escaped(error_text(error))
            raise
        finally:
            _write(descriptor(), time.monotonic() - began, outcome)

    return observed


def _write(descriptor: int | None, seconds: float, outcome: str) -> None:
    call = present_call()
    if descriptor is None or call is None:
        return
    stamp = time.strftime("%Y-%m-%d %H:%M:%S %z")
    line = f"[{stamp}] [{os.getpid()}] {call[0].peer} {escaped(str(call[1][-2]))} {seconds * 1000:.3f}ms {outcome}\n"
    with contextlib.suppress(OSError):  # a full disk stops the log, never the service
        write(descriptor, line.encode("utf-8", "backslashreplace"))
