"""Tells the wrappers of a method, and then the engine, that a call does not end here and now. Runs in the worker.

It is answered later, or it has not begun and is held back. Only methods marked with ``later=True`` are checked for a
`Later`, so that other methods pay nothing.
"""

from __future__ import annotations

from typing import Any, Callable

from rpccluster.protocol.bounded import GONE
from rpccluster.service import Later

__all__ = ["HeldBack", "Parked", "parking", "unless_left"]


class HeldBack(BaseException):
    """Raised instead of a result: the call begins when its kind has room. It is no error; services never see it."""

    def __init__(self, kind: Any = None) -> None:
        """``kind`` is a `rpccluster.worker.native.call.NativeKind`; None if the call waits for a greenlet."""
        self.kind = kind


class Parked(BaseException):
    """Raised instead of a result, when a call is answered later. It is no error, and services never see it."""

    limit: Any = None  # the call's `TimeLimit`, which goes on
    interruption: BaseException | None = None  # of its method, which returned all the same: it is over
    token: int | None = None  # of the lead under which it has begun, if it may only run under one
    began_ns = 0  # when the call has begun, if it is timed
    log: Callable[[str, str, str], object] | None = None  # gets peer, method and outcome at the end

    def __init__(self, later: Later) -> None:
        self.later = later

    def tell_too(self, log: Callable[[str, str, str], object]) -> None:
        """Tell ``log`` of the end, after those that are told already."""
        self.log = log if self.log is None else _in_turn(self.log, log)


def _in_turn(*logs: Callable[[str, str, str], object]) -> Callable[[str, str, str], object]:
    def tell(peer: str, method: str, outcome: str) -> None:
        for log in logs:
            log(peer, method, outcome)

    return tell


def unless_left(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``function`` to run only while its caller is there."""
    from greenlet import getcurrent  # the master reads this module, too, and has no greenlets

    from rpccluster.worker.current import Cancelled

    def runs(*params: Any) -> Any:
        runner: Any = getcurrent()
        if runner.outbox is not None and runner.outbox.has_left:
            raise Cancelled(GONE)
        return function(*params)

    return runs


def parking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``function`` to raise `Parked` if it returns a `Later`."""

    def parks(*params: Any) -> Any:
        result = function(*params)
        if type(result) is Later:
            raise Parked(result)
        return result

    return parks
