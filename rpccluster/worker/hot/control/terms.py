"""The terms on which a call runs: its deadline and its trace, as ``rpc.call`` brings them. Pure; runs in the worker.

The caller says how long the call may take from its arrival. A call that is put aside before it begins keeps its
deadline in place of these options: as `Terms`, which are options again when the call is packed for another worker.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from time import monotonic
from typing import Any

from rpccluster.protocol.bounded import CALL, DEADLINE_PASSED, TIMEOUT, TRACE, is_traceparent

__all__ = ["Expired", "Terms", "terms_of", "with_deadlines"]

_LONGEST = 1e9  # seconds, 31 years: more is no limit


class Expired(TimeoutError):
    """The deadline of a call has passed before it began. Callers get a TimeoutError."""

    def __init__(self) -> None:
        super().__init__(DEADLINE_PASSED)


Expired.__name__ = "TimeoutError"  # callers see it


class Terms:
    """The deadline of a call, in monotonic seconds (infinite: none), and its traceparent or None."""

    __slots__ = ("ends_at", "trace")

    def __init__(self, ends_at: float, trace: str | None) -> None:
        self.ends_at = ends_at
        self.trace = trace

    def options(self) -> dict[str, Any]:
        """Return them as options that hold from now on."""
        found: dict[str, Any] = {} if self.ends_at == math.inf else {TIMEOUT: self.ends_at - monotonic()}
        if self.trace is not None:
            found[TRACE] = self.trace
        return found


def terms_of(options: Any, arrived_at: float) -> Terms:
    """Return the terms of a call that arrived at ``arrived_at``. Raises TypeError for options that are none."""
    if type(options) is not dict:
        raise TypeError(f"found options of type {type(options).__name__}, expected a map")
    seconds = options.get(TIMEOUT)
    trace = options.get(TRACE)
    if seconds is None:
        ends_at = math.inf
    elif (type(seconds) is float or type(seconds) is int) and seconds == seconds:
        ends_at = arrived_at + seconds if seconds < _LONGEST else math.inf
    else:
        raise TypeError(f"found the timeout {seconds!r:.40}, expected seconds")
    return Terms(ends_at, trace if trace is not None and is_traceparent(trace) else None)


def with_deadlines(calls: Iterable[Any], arrived_at: float) -> list[Any]:
    """Return ``calls``, which arrived then and are put aside; those that have options of time have `Terms` instead."""
    return [_with_deadline(call, arrived_at) if type(call) is list else call for call in calls]


def _with_deadline(call: list[Any], arrived_at: float) -> list[Any]:
    if len(call) >= 3 and call[-2] == CALL and type(call[-1]) is list and len(call[-1]) == 3:
        method, params, options = call[-1]
        try:
            return [*call[:-1], [method, params, terms_of(options, arrived_at)]]
        except TypeError:  # it is refused in its turn, or has terms already
            return call
    return call
