"""Which call the present greenlet runs, and how a call is interrupted. Runs in the worker; imports nothing of it.

A call that may not go on is interrupted once. It has a second for what it does in ``finally``; then its caller is
answered, whatever the method makes of it, and it is interrupted again every second.
"""

from __future__ import annotations

from typing import Any, Callable, ClassVar, NamedTuple, Protocol

from greenlet import getcurrent, greenlet

from rpccluster.protocol.codec import make_packer

__all__ = [
    "GRACE_SECONDS",
    "Call",
    "CallTimedOut",
    "Runner",
    "Sender",
    "WorkerRetired",
    "is_begun_by_a_call",
    "present_call",
    "present_method",
]

GRACE_SECONDS = 1.0  # for what an interrupted method does in its `finally`


class WorkerRetired(BaseException):
    """Thrown into a method that still runs when its worker's ``graceful_timeout`` is over; not an Exception, so
    that a method's own handling of errors lets it through. Callers know it by its name."""


class CallTimedOut(BaseException):
    """Thrown into a method whose time limit is over; not an Exception either. Callers are told of a TimeoutError."""


class Sender(Protocol):
    """What anybody may ask of where a call came from."""

    @property
    def peer(self) -> str:
        """The client's address, for log lines."""


class Call(NamedTuple):
    """A call that runs: where it came from, and the request or notification as it was decoded."""

    sender: Any  # a Sender; within the hot room it is the Outbox that the reply goes to
    message: Any


class Runner(greenlet):
    """A greenlet that runs calls, one after another; ``call`` is the one it is at, unless ``outbox`` is None: then it
    waits for one, or its call was answered without it.

    ``pack`` is its own: packing a mapping may block in the mapping's ``items()``, and what another runner packs
    meanwhile with the same Packer would be mixed into the reply.
    """

    #: gevent lets every greenlet inherit these from the one that spawns it: they show which greenlets a call has begun.
    spawn_tree_locals: ClassVar[dict[str, object]] = {}

    __slots__ = ("_answer", "_interrupted", "call", "outbox", "pack")

    def __init__(self, run: Callable[[], None], hub: greenlet, answer: Callable[[Runner, BaseException], None]) -> None:
        """``answer`` is called for a call that goes on in spite of an interruption."""
        super().__init__(run, parent=hub)
        self.outbox: Any = None
        self.call: Any = None
        self._answer = answer
        self._interrupted: Any = None  # the call that it is interrupted at
        self.renew_packer()

    def interrupt(self, error: BaseException) -> None:
        """Throw ``error`` into the method of the present call; once, however often this is called. In the hub."""
        if self.outbox is not None and self._interrupted is not self.call:
            self._interrupted = self.call
            timer = self.parent.loop.timer(GRACE_SECONDS, GRACE_SECONDS)
            timer.start(self._insist, timer, self.call, error)
            self.throw(error)

    def _insist(self, timer: Any, call: Any, error: BaseException) -> None:
        """The grace is over."""
        if self.call is not call:
            timer.stop()
            timer.close()
            if self._interrupted is call:
                self._interrupted = None
            return
        if self.outbox is not None:
            self._answer(self, error)
        self.throw(type(error)(*error.args))

    def renew_packer(self) -> Callable[[Any], bytes]:
        """Pack by a new Packer from now on: the old one's buffer may have grown."""
        self.pack: Callable[[Any], bytes] = make_packer().pack
        return self.pack


def present_call() -> Call | None:
    """The call that the present greenlet runs, None if it runs none."""
    runner = getcurrent()
    if not isinstance(runner, Runner) or runner.outbox is None:
        return None
    return Call(runner.outbox, runner.call)


def present_method() -> str:
    """The name of the method that the present greenlet runs, empty if it runs none."""
    call = present_call()
    message = call.message if call is not None else None
    name = message[-2] if type(message) is list and len(message) >= 3 else ""
    return name if type(name) is str else ""


def is_begun_by_a_call(greenlet: Any) -> bool:
    """Whether a call has spawned ``greenlet``, directly or through greenlets that it has spawned."""
    return greenlet.spawn_tree_locals is Runner.spawn_tree_locals
