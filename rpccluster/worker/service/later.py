"""Methods that may return a `Later`: how their wrappers, and then the engine, learn of it. Runs in the worker.

Only a method marked with ``later=True`` is looked at like this, so that others pay nothing for it.
"""

from __future__ import annotations

from typing import Any, Callable

from rpccluster.service import Later

__all__ = ["Parked", "parking"]


class Parked(BaseException):
    """Raised in place of a result: the call has begun and is answered later. No error, and nothing of a service's."""

    def __init__(self, later: Later) -> None:
        super().__init__()
        self.later = later
        self.limit: Any = None  # the call's `TimeLimit`, which goes on
        self.log: Callable[[str, str, str], object] | None = None  # told peer, method and outcome at the end


def parking(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, that raises `Parked` where it returns a `Later`."""

    def parks(*params: Any) -> Any:
        result = function(*params)
        if type(result) is Later:
            raise Parked(result)
        return result

    return parks
