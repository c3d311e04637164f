"""Tells the wrappers of a method, and then the engine, that it has returned a `Later`. Runs in the worker.

Only methods marked with ``later=True`` are checked, so that other methods pay nothing.
"""

from __future__ import annotations

from typing import Any, Callable

from rpccluster.service import Later

__all__ = ["Parked", "parking"]


class Parked(BaseException):
    """Raised instead of a result, when a call is answered later. It is no error, and services never see it."""

    limit: Any = None  # the call's `TimeLimit`, which goes on
    interruption: BaseException | None = None  # of its method, which returned all the same: it is over
    log: Callable[[str, str, str], object] | None = None  # gets peer, method and outcome at the end

    def __init__(self, later: Later) -> None:
        self.later = later


def parking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``function`` to raise `Parked` if it returns a `Later`."""

    def parks(*params: Any) -> Any:
        result = function(*params)
        if type(result) is Later:
            raise Parked(result)
        return result

    return parks
