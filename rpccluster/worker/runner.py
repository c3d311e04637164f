"""The greenlets that run calls, and which call the present one is at. Runs in the worker."""

from __future__ import annotations

from typing import Any, Callable

from greenlet import getcurrent, greenlet

from rpccluster.worker.caller import Call, Caller

__all__ = ["Runner", "WorkerRetired", "present_call"]


class WorkerRetired(BaseException):
    """Thrown into a method that still runs when its worker's ``graceful_timeout`` is over; not an Exception, so
    that a method's own handling of errors lets it through. Callers know it by its name."""


class Runner(greenlet):
    """Runs calls, one after another; ``message`` is the one it is at, unless ``connection`` is None: then it waits."""

    __slots__ = ("connection", "message")

    def __init__(self, run: Callable[[], None], hub: greenlet) -> None:
        super().__init__(run, parent=hub)
        self.connection: Caller | None = None
        self.message: Any = None


def present_call() -> Call | None:
    """The call that the present greenlet runs, None if it runs none."""
    runner = getcurrent()
    if not isinstance(runner, Runner) or runner.connection is None:
        return None
    return runner.connection, runner.message
