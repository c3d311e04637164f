"""``rpc.call``: calls a method until the deadline that the caller has set. Runs in the runners.

It puts the call that is named inside in place of its own, so that limits, logs, errors and `current_call` see that. A
call past its deadline is not begun; one that passes it is interrupted like one past ``call_timeout``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from time import monotonic
from typing import Any, Callable

from greenlet import getcurrent

from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.protocol.bounded import DEADLINE_PASSED, RESERVED
from rpccluster.worker.hot.control.terms import Expired, Terms, terms_of
from rpccluster.worker.service.call_errors import Misfit
from rpccluster.worker.service.later import HeldBack, Parked
from rpccluster.worker.service.time_limit import TimeLimit

__all__ = ["BoundedCalls", "deadline"]

_RUNNING_METHOD = int(CommonCell.RUNNING)
_NO_OPTIONS: dict[str, Any] = {}


class BoundedCalls:
    """Runs the calls that are named inside of others."""

    def __init__(self, numbers: Mapping[str, int], cells: Any, arrived_at: Callable[[], float]) -> None:
        """``numbers`` are those of the methods; ``arrived_at`` tells when the call that begins now has come."""
        self._numbers = numbers
        self._cells = cells
        self._arrived_at = arrived_at

    def call(self, method: str, params: list[Any], options: dict[str, Any] = _NO_OPTIONS) -> Any:
        """Call METHOD with PARAMS; options: "timeout", in seconds from the arrival, and "trace", a traceparent."""
        runner: Any = getcurrent()
        outer = runner.call
        try:
            terms: Any = options if type(options) is Terms else terms_of(options, self._arrived_at())
            name = _name_of(method)
            if type(params) is not list:
                raise TypeError(f"found params of type {type(params).__name__}, expected an array")
        except TypeError as error:
            raise Misfit(error) from None
        inner = runner.call = [*outer[:-2], name, params]
        if terms.trace is not None:
            runner.traced = inner, terms.trace
        function = runner.outbox.tables[runner.which][name]
        self._cells[_RUNNING_METHOD] = self._numbers[name]
        try:
            return function(*params) if terms.ends_at == math.inf else _run(runner, function, params, terms.ends_at)
        except HeldBack:
            runner.call = [*outer[:-1], [name, params, terms]]
            raise


def _run(runner: Any, function: Callable[..., Any], params: list[Any], ends_at: float) -> Any:
    if monotonic() >= ends_at:
        raise Expired
    limit = runner.limit = deadline(runner, ends_at)
    try:
        result = function(*params)
    except BaseException as error:
        runner.limit = None
        if type(error) is Parked and error.limit is None:
            error.limit = limit
        else:
            limit.end()
        raise
    runner.limit = None
    limit.end()
    if monotonic() >= ends_at:
        raise Expired
    return result


def deadline(runner: Any, ends_at: float) -> TimeLimit:
    """Return the limit of a call of ``runner`` whose caller has set it, in monotonic seconds."""
    return TimeLimit(runner, ends_at, DEADLINE_PASSED, _count_nothing)


def _count_nothing() -> None:
    """The caller has set the limit, and counts for itself."""


def _name_of(method: Any) -> str:
    name = method if type(method) is str else method.decode("utf-8", "surrogateescape") if type(method) is bytes else ""
    if not name or name.startswith(RESERVED):
        what = repr(name[:100]) if name else f"a method of type {type(method).__name__}"
        raise TypeError(f"found {what}, expected the name of a method of the service")
    return name
