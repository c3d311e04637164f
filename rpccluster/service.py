"""The names for authors of services: the base class `Service`, the mark `rpc`, and `Later`. Imports nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, TypeVar

__all__ = ["Later", "RPCMark", "Service", "WorkerInfo", "rpc"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class WorkerInfo:
    """The worker in which a service runs, as its hooks see it."""

    slot: int
    pid: int
    generation: int


class Service:
    """An optional base class of services, with two hooks, which callers cannot call."""

    def worker_started(self, worker: WorkerInfo) -> None:
        """The worker calls it once, before it serves; an exception keeps the worker from booting."""

    def worker_stopping(self, worker: WorkerInfo) -> None:
        """A retiring worker calls it once, after its last call; a killed or quickly stopped one does not."""


@dataclass(frozen=True)
class RPCMark:
    """The mark that `rpc` leaves on a function."""

    name: str | None
    timeout: float | None
    later: bool = False


def rpc(
    *, name: str | None = None, timeout: float | None = None, later: bool = False
) -> Callable[[_Function], _Function]:
    """Mark a method. Callers call it by ``name``; ``timeout`` limits it in seconds, instead of ``call_timeout``.

    A timeout of 0 means no limit. With ``later``, the method may return a `Later`. Raises ValueError for a name that
    callers cannot use, or for a negative timeout.
    """
    if name is not None and (not name or name.startswith(("_", "rpc."))):
        raise ValueError(f"found the method name {name!r}, expected one that starts neither with '_' nor with 'rpc.'")
    if timeout is not None and timeout < 0:
        raise ValueError(f"found timeout={timeout!r}, expected seconds, 0 for no limit")

    def mark(function: _Function) -> _Function:
        function.__rpc__ = RPCMark(name, timeout, later)  # type: ignore[attr-defined]
        return function

    return mark


class Later:
    """The later answer to a call; a method marked ``@rpc(later=True)`` returns it instead of a value.

    The first `reply` or `fail` answers the call. Other greenlets, callbacks of the loop and native threads may call
    them. Until then the call holds no greenlet. In all other respects it is a running call: its time limit,
    ``max_pending_calls``, a move of its connection and the end of its worker concern it, too.

    The call is over without an answer of the service when its time limit passes, its connection is closed, or its
    worker ends. A later answer is dropped, and `reply` and `fail` return False.
    """

    # The thread that deletes `_claim` may end the call: a slot can be deleted only once, in whatever thread.
    __slots__ = ("_call", "_claim", "_on_over", "_outcome")

    def __init__(self, on_over: Callable[[], object] | None = None) -> None:
        """The worker's loop calls ``on_over`` once if the call is over without an answer; it must not wait.

        A forked child does not call it.
        """
        self._on_over = on_over
        self._claim = True
        self._call: Any = None  # the worker's record, from the method's return to the call's end
        self._outcome: tuple[BaseException | None, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the call was answered, or is over without an answer."""
        return not hasattr(self, "_claim")

    def reply(self, value: Any = None) -> bool:
        """Answer with ``value``. Returns whether this was in time; a late value is dropped.

        If the value cannot be packed, the caller gets an error, as for a method's result. It is packed here, so code
        that runs while it is packed may wait here.
        """
        return self._end(None, value)

    def fail(self, error: BaseException) -> bool:
        """Answer with ``error``, as if the method had raised it. Returns whether this was in time."""
        if not isinstance(error, BaseException):
            raise TypeError(f"found {type(error).__name__}, expected an exception")
        return self._end(error, None)

    def _end(self, error: BaseException | None, value: Any) -> bool:
        if not self._take():
            return False
        self._outcome = error, value  # set first, so that a method that returns just now finds it
        call = self._call
        if call is not None:
            call.answer()
        return True

    def _take(self) -> bool:
        """Return whether this is the first try to end the call, which alone may end it."""
        try:
            del self._claim
        except AttributeError:
            return False
        return True
