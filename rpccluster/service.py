"""What the author of a service may use: the `Service` base class, the `rpc` mark, `Later`. Imports nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, TypeVar

__all__ = ["Later", "RPCMark", "Service", "WorkerInfo", "rpc"]

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
    later: bool = False


def rpc(
    *, name: str | None = None, timeout: float | None = None, later: bool = False
) -> Callable[[_Function], _Function]:
    """Mark a method: ``name`` is what callers call it; ``timeout`` bounds it in seconds, instead of ``call_timeout``.

    A timeout of 0 means no limit. With ``later`` the method may return a `Later`. Raises ValueError for a name that
    callers could not use, or a negative timeout.
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
    """The answer to a call, given later: a method marked ``@rpc(later=True)`` returns it instead of a value.

    The call is then answered by the first `reply` or `fail`, whoever calls it: other greenlets, callbacks of the loop,
    native threads. Until then it holds no greenlet, and counts as a running call in everything else: its time limit,
    ``max_pending_calls``, a move of its connection, the end of its worker.

    A call is over without an answer of the service when its time limit passes, its connection is closed, or its worker
    ends. Whatever is answered afterwards is dropped, and `reply` and `fail` return False.
    """

    # The first to delete `_claim` has the right to end the call: deleting a slot happens once, in whatever thread.
    __slots__ = ("_call", "_claim", "_on_over", "_outcome")

    def __init__(self, on_over: Callable[[], object] | None = None) -> None:
        """``on_over`` is called once if the call is over without an answer: by the worker's loop, so it must not wait.

        It is not called in a process that has been forked.
        """
        self._on_over = on_over
        self._claim = True
        self._call: Any = None  # the worker's record, from the method's return to the call's end
        self._outcome: tuple[BaseException | None, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it was answered, or is over without an answer."""
        return not hasattr(self, "_claim")

    def reply(self, value: Any = None) -> bool:
        """Answer with ``value``. Returns whether this was in time; if not, it is dropped.

        A value that cannot be packed is an error for the caller, as a method's result is. It is packed here, so what
        its packing calls may wait here.
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
        self._outcome = error, value  # first: a method that returns just now finds it
        call = self._call
        if call is not None:
            call.answer()
        return True

    def _take(self) -> bool:
        """Get the right to end the call. Once; then nobody else does."""
        try:
            del self._claim
        except AttributeError:
            return False
        return True
