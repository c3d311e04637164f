"""The call that runs here, and how the call of a greenlet is interrupted. Runs in the worker; imports nothing of it.

A call that may not go on is interrupted once, and has a second for its ``finally`` blocks. Then its caller is answered,
whatever the method does, and the call is interrupted again every second.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Callable, ClassVar, NamedTuple, Protocol

from greenlet import getcurrent, greenlet

from rpccluster.identity import Identity
from rpccluster.protocol.codec import make_packer
from rpccluster.service import find_calls_by

__all__ = [
    "GRACE_SECONDS",
    "NATIVE_CALL",
    "Call",
    "CallTimedOut",
    "Cancelled",
    "Runner",
    "Sender",
    "WorkerRetired",
    "is_begun_by_a_call",
    "present_call",
    "present_method",
    "present_sender",
    "runner_of_call",
]

GRACE_SECONDS = 1.0  # for the `finally` blocks of an interrupted method


class WorkerRetired(BaseException):
    """Thrown into a method that still runs at its worker's ``graceful_timeout``. Callers see its name.

    It is no Exception, so that a method's own handling of errors does not catch it.
    """


class CallTimedOut(BaseException):
    """Thrown into a method past its time limit; no Exception either. Callers get a TimeoutError."""


class Cancelled(BaseException):
    """Thrown into a method whose call is cancelled; no Exception either. Callers see its name."""


class Sender(Protocol):
    """The origin of a call, as other modules see it."""

    @property
    def peer(self) -> str:
        """The client's address, for log lines."""


class Call(NamedTuple):
    """A running call: its origin, and the decoded request or notification."""

    sender: Any  # a Sender; within the hot room the Outbox of the reply
    message: Any


class Runner(greenlet):
    """A greenlet that runs one call after another. ``call`` is the present one, unless ``outbox`` is None.

    Then the runner waits for a call, or its call was answered without it. Each runner has its own ``pack``: packing a
    mapping may block in the mapping's ``items()``, and another runner would mix its output into the same Packer.
    """

    #: A greenlet inherits these from the one that spawns it, so they show which greenlets a call has spawned.
    spawn_tree_locals: ClassVar[dict[str, object]] = {}

    __slots__ = (
        "_answer",
        "_interrupted",
        "_shown",
        "began_ns",
        "call",
        "limit",
        "outbox",
        "pack",
        "traced",
        "waited_ns",
        "which",
    )

    def __init__(
        self,
        run: Callable[[], None],
        hub: greenlet,
        which: int,
        answer: Callable[[Runner, BaseException], None],
    ) -> None:
        """It finds methods in the first table of each connection, or in the second one: ``which`` is 0 or 1.

        ``answer`` answers a call that goes on after an interruption.
        """
        super().__init__(run, parent=hub)
        self.which = which
        self.outbox: Any = None
        self.call: Any = None
        self.began_ns = self.waited_ns = 0  # begin of the present call, and its wait, if it is timed and noted
        self.limit: Any = None  # the present call's `TimeLimit`, if it has one
        self.traced: tuple[Any, str | None] = (None, None)  # the last call with a traceparent, and that
        self._answer = answer
        self._shown: GreenletCall | None = None  # the last call that `current_call` has shown
        self._interrupted: tuple[Any, BaseException | None] = (None, None)  # the call, and what was thrown into it
        self.renew_packer()

    @property
    def interruption(self) -> BaseException | None:
        """The error with which the present call was interrupted; None if it was not."""
        call, error = self._interrupted
        return error if call is not None and call is self.call else None

    def take_interruption(self) -> BaseException | None:
        """Return the error with which the present call has to end, whatever its method did with it; None if none.

        A call that ends with its worker may have a result; one past its time limit, or cancelled, may not.
        """
        error = self.interruption
        if error is None or type(error) is WorkerRetired:
            return None
        self._interrupted = None, None
        return error

    def cancel(self, call: Any, error: BaseException) -> None:
        """Interrupt ``call`` with ``error`` unless it has ended. Runs in the hub."""
        if self.call is call:
            self.interrupt(error)

    def interrupt(self, error: BaseException) -> None:
        """Throw ``error`` into the method of the present call, but only once for each call. Runs in the hub."""
        if self.outbox is not None and self.interruption is None:
            self._interrupted = self.call, error
            if self._shown is not None and self._shown.message is self.call:
                self._shown.cancelled = True
            timer = self.parent.loop.timer(GRACE_SECONDS, GRACE_SECONDS)
            timer.start(self._insist, timer, self.call, error)
            self.throw(error)

    def _insist(self, timer: Any, call: Any, error: BaseException) -> None:
        """Answer a call that goes on after its grace, and interrupt it again."""
        if self.call is not call:
            timer.stop()
            timer.close()
            if self._interrupted[0] is call:
                self._interrupted = None, None
            return
        if self.outbox is not None:
            self._answer(self, error)
        self.throw(type(error)(*error.args))

    def show(self) -> GreenletCall | None:
        """Return the present call for its method; None if there is none, or it was answered without it."""
        if self._shown is None or self._shown.message is not self.call:
            self._shown = None if self.outbox is None else GreenletCall(self)
        return self._shown

    def renew_packer(self) -> Callable[[Any], bytes]:
        """Replace the Packer, whose buffer may have grown."""
        self.pack: Callable[[Any], bytes] = make_packer().pack
        return self.pack


class GreenletCall:
    """A call that a runner runs, as `rpccluster.current_call` shows it."""

    __slots__ = ("cancelled", "deadline", "identity", "message", "peer", "trace")

    def __init__(self, runner: Runner) -> None:
        self.message = runner.call
        call, trace = runner.traced
        self.trace = trace if call is self.message else None
        self.peer: str = runner.outbox.peer
        self.identity: Identity = runner.outbox.identity
        self.deadline: float | None = None if runner.limit is None else runner.limit.ends_at
        self.cancelled = runner.interruption is not None

    @property
    def method(self) -> str:
        """The name that the caller called."""
        return str(self.message[-2])

    @property
    def msgid(self) -> int | None:
        """The request's number; None for a notification."""
        number: int | None = self.message[1] if len(self.message) == 4 else None
        return number


#: The call that a native thread or the asyncio loop runs here; a `rpccluster.worker.native.call.NativeCall`.
NATIVE_CALL: ContextVar[Any] = ContextVar("rpccluster's call", default=None)


def _find() -> Any:
    """Return the call that the present greenlet, or a native thread or task, runs or was begun by."""
    native = NATIVE_CALL.get()
    if native is not None:
        return native
    runner = runner_of_call()
    return None if runner is None else runner.show()


def runner_of_call() -> Runner | None:
    """Return the runner in whose call the present greenlet is: itself, or the one whose call has spawned it."""
    greenlet: Any = getcurrent()
    while not isinstance(greenlet, Runner):
        if greenlet is None or not hasattr(greenlet, "spawning_greenlet") or not is_begun_by_a_call(greenlet):
            return None
        greenlet = greenlet.spawning_greenlet()
    return greenlet


find_calls_by(_find)


def present_call() -> Call | None:
    """Return the call that the present greenlet runs; None if it runs none."""
    runner = getcurrent()
    if not isinstance(runner, Runner) or runner.outbox is None:
        return None
    return Call(runner.outbox, runner.call)


def present_sender() -> Any:
    """Return the origin of the call that the present greenlet runs; None if it runs none."""
    runner = getcurrent()
    return runner.outbox if isinstance(runner, Runner) else None


def present_method() -> str:
    """Return the name of the method that the present greenlet runs; empty if it runs none."""
    call = present_call()
    message = call.message if call is not None else None
    name = message[-2] if type(message) is list and len(message) >= 3 else ""
    return name if type(name) is str else ""


def is_begun_by_a_call(greenlet: Any) -> bool:
    """Return whether a call has spawned ``greenlet``, directly or through other greenlets."""
    return greenlet.spawn_tree_locals is Runner.spawn_tree_locals
