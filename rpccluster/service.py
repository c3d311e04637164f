"""The names for authors of services: `Service`, the mark `rpc`, `Later` and `current_call`. Imports nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, TypeVar

if TYPE_CHECKING:
    from rpccluster.identity import Identity

__all__ = [
    "CurrentCall",
    "Later",
    "RPCMark",
    "Service",
    "WorkerInfo",
    "current_call",
    "find_call",
    "find_calls_by",
    "find_trace",
    "find_traces_by",
    "rpc",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class WorkerInfo:
    """The worker in which a service runs, as its hooks see it."""

    slot: int
    pid: int
    generation: int
    _set_health: Callable[[bool], object] = field(default=lambda is_healthy: None, repr=False, compare=False)

    def set_health(self, is_healthy: bool) -> None:
        """Say whether this worker can serve; any thread may.

        One that cannot accepts no connections until it can again, and answers ``rpc.health`` with false. It serves
        the connections that it has.
        """
        self._set_health(bool(is_healthy))


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
    thread: bool = False
    pool: str | None = None
    leader_only: bool = False
    cancel_on_disconnect: bool | None = None  # None: as the option says


def rpc(
    *,
    name: str | None = None,
    timeout: float | None = None,
    later: bool = False,
    thread: bool = False,
    pool: str | None = None,
    leader_only: bool = False,
    cancel_on_disconnect: bool | None = None,
) -> Callable[[_Function], _Function]:
    """Mark a method. Callers call it by ``name``; ``timeout`` limits it in seconds, instead of ``call_timeout``.

    A timeout of 0 means no limit. With ``later``, the method may return a `Later`. With ``thread``, the method runs in
    one of the worker's native threads, so that it may block or compute without holding up other calls. With ``pool``,
    it runs in a process of that pool, on an instance of the service that the process makes once. With ``leader_only``,
    it runs only while the cluster leads: other calls are answered ``NotLeader: ADDRESS``. With
    ``cancel_on_disconnect``, a call is cancelled when its caller's connection ends; without a word the option of that
    name decides. Raises ValueError for a name that callers cannot use, for a negative timeout, or for two of ``later``,
    ``thread`` and ``pool``.
    """
    if name is not None and (not name or name.startswith(("_", "rpc."))):
        raise ValueError(f"found the method name {name!r}, expected one that starts neither with '_' nor with 'rpc.'")
    if timeout is not None and timeout < 0:
        raise ValueError(f"found timeout={timeout!r}, expected seconds, 0 for no limit")
    if later and thread:
        raise ValueError("found later=True beside thread=True, expected one of them: a thread's call is answered later")
    if pool is not None and (later or thread):
        raise ValueError("found pool beside later or thread, expected one of them: a method runs in one place")

    def mark(function: _Function) -> _Function:
        function.__rpc__ = RPCMark(  # type: ignore[attr-defined]
            name, timeout, later, thread, pool, leader_only, cancel_on_disconnect
        )
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
    __slots__ = ("_again", "_call", "_claim", "_on_over", "_outcome")

    _outlives_connection = False  # whether the call goes on when its connection is closed

    def __init__(self, on_over: Callable[[], object] | None = None) -> None:
        """The worker's loop calls ``on_over`` once if the call is over without an answer; it must not wait.

        A forked child does not call it.
        """
        self._on_over = on_over
        self._again: list[Any] | None = None  # params with which the call begins anew where its connection goes
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

    # -- what the worker tells it, in the thread of its loop

    def _note_over(self, tell: Callable[[Callable[[], object]], object]) -> None:
        """Note that the call is over without an answer; ``tell`` calls a function of the service soon."""
        if self._on_over is not None:
            tell(self._on_over)

    def _note_end(self) -> None:
        """Note that the call has ended, with or without an answer."""


class CurrentCall:
    """The call that runs here, as `current_call` returns it; read-only. It may be asked from any thread, at any time.

    ``peer`` is the client's address, ``method`` the name that the client called, ``msgid`` the request's number (None
    for a notification). ``deadline`` is the end of its time limit, in seconds of `time.monotonic` (None: no limit):
    that of the method or of the client, whichever is sooner. ``cancelled`` is true when the caller has been answered,
    or will be, without the method's result: its limit has passed, the client has cancelled it, or its worker ends.
    ``trace`` is the W3C ``traceparent`` that the client has sent along (None: none).
    ``identity`` is what is known of the caller, a str such as ``key:NAME``, ``cert:NAME`` or ``uid:N``, with all that
    is known in its ``names`` (`rpccluster.identity.Identity`); None if nothing is.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Any) -> None:
        self._call = call

    @property
    def peer(self) -> str:
        return str(self._call.peer)

    @property
    def method(self) -> str:
        return str(self._call.method)

    @property
    def msgid(self) -> int | None:
        found: int | None = self._call.msgid
        return found

    @property
    def deadline(self) -> float | None:
        found: float | None = self._call.deadline
        return found

    @property
    def cancelled(self) -> bool:
        return bool(self._call.cancelled)

    @property
    def trace(self) -> str | None:
        found: str | None = self._call.trace
        return found

    @property
    def identity(self) -> Identity | None:
        found: Identity = self._call.identity
        return found or None

    def __repr__(self) -> str:
        return f"<call of {self.method} by {self.peer}, msgid {self.msgid}>"


def _no_call() -> None:
    """Return None: no call runs here."""


_find: Callable[[], Any] = _no_call  # the worker's, from its start


def current_call() -> CurrentCall | None:
    """Return the call that runs here; None outside of calls.

    It is found in the method, in greenlets and asyncio tasks that the method has begun, and in threads with its
    `contextvars` context.
    """
    call = _find()
    return None if call is None else CurrentCall(call)


def find_call() -> Any:
    """Return the call that runs here, as the worker has it; None outside of calls."""
    return _find()


def find_trace() -> str | None:
    """Return the W3C traceparent that calls from here pass on; None if there is none."""
    return _find_trace()


def _of_call() -> str | None:
    call = _find()
    found: str | None = None if call is None else call.trace
    return found


_find_trace: Callable[[], str | None] = _of_call


def find_traces_by(find: Callable[[], str | None]) -> None:
    """Let clients in this process ask ``find`` for the traceparent that they pass on."""
    global _find_trace
    _find_trace = find


def find_calls_by(find: Callable[[], Any]) -> None:
    """Let `current_call` ask ``find`` for the call that runs here."""
    global _find
    _find = find
