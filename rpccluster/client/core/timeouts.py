"""The meaning of ``timeout`` in a call. Pure; both faces use it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rpccluster import service

__all__ = ["CLIENTS", "deadline_here", "seconds_left_here", "seconds_of"]


class _Clients:
    def __repr__(self) -> str:
        return "<the client's>"


#: The default in a call: as long as the client was told when it was made.
CLIENTS: Any = _Clients()


def deadline_here() -> float:
    """Return the deadline of the call that runs here, in monotonic seconds; infinite outside of a worker's calls.

    A client used inside a method waits no longer than that, since nobody would get the result.
    """
    find = service._find
    if find is service._no_call:  # so for most clients: each function that is run costs 2 µs where caches are cold
        return math.inf
    call = find()
    deadline = None if call is None else call.deadline
    return math.inf if deadline is None else deadline


def seconds_left_here(clock: Callable[[], float]) -> float:
    """Return how long the call that runs here may still take, by the monotonic ``clock``; infinite outside of calls."""
    deadline = deadline_here()
    return math.inf if deadline == math.inf else max(0.0, deadline - clock())


def seconds_of(timeout: float | None, clients: float) -> float:
    """Return the seconds of ``timeout``: None means no limit, and `CLIENTS` means ``clients``."""
    if timeout is CLIENTS:
        return clients
    return math.inf if timeout is None else timeout
