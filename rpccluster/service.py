"""What the author of a service may use: the `Service` base class and the `rpc` mark. Imports nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, TypeVar

__all__ = ["RPCMark", "Service", "WorkerInfo", "rpc"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class WorkerInfo:
    """The worker that a service runs in, as its hooks see it."""

    slot: int
    pid: int
    generation: int


class Service:
    """An optional base class with hooks. Neither hook is a method that callers could call."""

    def worker_started(self, worker: WorkerInfo) -> None:
        """Called once in each worker before it serves; an exception here keeps the worker from booting."""

    def worker_stopping(self, worker: WorkerInfo) -> None:
        """Called once in a worker that retires, after its last call; not when it is killed or stopped quickly."""


@dataclass(frozen=True)
class RPCMark:
    """What `rpc` leaves on a function."""

    name: str | None
    timeout: float | None


def rpc(*, name: str | None = None, timeout: float | None = None) -> Callable[[_Function], _Function]:
    """Mark a method: ``name`` is what callers call it; ``timeout`` bounds it in seconds, instead of ``call_timeout``.

    A timeout of 0 means no limit. Raises ValueError for a name callers could not use or a negative timeout.
    """
    if name is not None and (not name or name.startswith(("_", "rpc."))):
        raise ValueError(f"found the method name {name!r}, expected one that starts neither with '_' nor with 'rpc.'")
    if timeout is not None and timeout < 0:
        raise ValueError(f"found timeout={timeout!r}, expected seconds, 0 for no limit")

    def mark(function: _Function) -> _Function:
        function.__rpc__ = RPCMark(name, timeout)  # type: ignore[attr-defined]
        return function

    return mark
