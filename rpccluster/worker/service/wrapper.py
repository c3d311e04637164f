"""Wraps a method in its time limit and its line in the access log. Runs in the worker."""

from __future__ import annotations

from typing import Any, Callable

from rpccluster.ipc.scoreboard import Cell
from rpccluster.log import LogFiles
from rpccluster.log.outlet import Outlet
from rpccluster.worker.limits import Limits
from rpccluster.worker.live_options import LiveOptions
from rpccluster.worker.service.access_log import logged
from rpccluster.worker.service.time_limit import bound

__all__ = ["Wrapper"]


class Wrapper:
    """Wraps methods as the present options say; `Registry.wrap_all` calls it again when they change."""

    def __init__(self, options: LiveOptions, logs: LogFiles, limits: Limits) -> None:
        self._options = options
        self._logs = logs
        self._limits = limits

    def __call__(self, function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        """Wrap ``function``, with a limit of ``seconds`` unless that is 0."""
        limited = bound(function, seconds, self._count_timeout)
        outlet = self._access_outlet()
        return limited if outlet is None else logged(limited, outlet)

    def _count_timeout(self) -> None:
        self._limits.count(Cell.CALL_TIMEOUT)

    def _access_outlet(self) -> Outlet | None:
        """Return the outlet of the access log; None if it is off, or if this process does not have its file."""
        where = self._options.access_log
        return None if where == "off" else self._logs.outlet if where == "on" else self._logs.access_outlet
