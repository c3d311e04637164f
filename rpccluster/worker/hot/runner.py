"""The greenlets that run calls, and which call the present one is at. Runs in the worker.

A call that may not go on is interrupted once. It has a second for what it does in ``finally``; then its caller is
answered, whatever the method makes of it, and it is interrupted again every second.
"""

from __future__ import annotations

from typing import Any, Callable, ClassVar

from greenlet import getcurrent, greenlet

from rpccluster.protocol.codec import make_packer
from rpccluster.worker.hot.caller import Call, Caller

__all__ = ["GRACE_SECONDS", "CallTimedOut", "Runner", "WorkerRetired", "present_call", "present_method"]

GRACE_SECONDS = 1.0  # for what an interrupted method does in its `finally`


class WorkerRetired(BaseException):
    """Thrown into a method that still runs when its worker's ``graceful_timeout`` is over; not an Exception, so
    that a method's own handling of errors lets it through. Callers know it by its name."""


class CallTimedOut(BaseException):
    """Likewise, for a method whose time limit is over. Callers are told of a TimeoutError."""


class Runner(greenlet):
    """Runs calls, one after another; ``message`` is the one it is at, unless ``connection`` is None: then it waits, or
    its call was answered without it.

    ``pack`` is its own: packing a mapping may block in the mapping's ``items()``, and what another packs meanwhile
    with the same Packer would be mixed into the reply.
    """

    #: gevent lets every greenlet inherit these from the one that spawns it: so it shows which a call has begun.
    spawn_tree_locals: ClassVar[dict[str, object]] = {}

    __slots__ = ("_answer", "_interrupted", "connection", "message", "pack")

    def __init__(self, run: Callable[[], None], hub: greenlet, answer: Callable[[Runner, BaseException], None]) -> None:
        """``answer`` is called for a call that goes on in spite of an interruption."""
        super().__init__(run, parent=hub)
        self.connection: Caller | None = None
        self.message: Any = None
        self._answer = answer
        self._interrupted: Any = None  # the message that it is interrupted at
        self.renew_packer()

    def interrupt(self, error: BaseException) -> None:
        """Throw ``error`` into the method of the present call; once, however often this is called. In the hub."""
        if self.connection is not None and self._interrupted is not self.message:
            self._interrupted = self.message
            timer = self.parent.loop.timer(GRACE_SECONDS, GRACE_SECONDS)
            timer.start(self._insist, timer, self.message, error)
            self.throw(error)

    def _insist(self, timer: Any, message: Any, error: BaseException) -> None:
        """The grace is over."""
        if self.message is not message:
            timer.stop()
            timer.close()
            if self._interrupted is message:
                self._interrupted = None
            return
        if self.connection is not None:
            self._answer(self, error)
        self.throw(type(error)(*error.args))

    def renew_packer(self) -> Callable[[Any], bytes]:
        """Pack by a new Packer from now on: the old one's buffer may have grown."""
        self.pack: Callable[[Any], bytes] = make_packer().pack
        return self.pack


def present_call() -> Call | None:
    """The call that the present greenlet runs, None if it runs none."""
    runner = getcurrent()
    if not isinstance(runner, Runner) or runner.connection is None:
        return None
    return runner.connection, runner.message


def present_method() -> str:
    """The name of the method in it, empty if there is none."""
    call = present_call()
    name = call[1][-2] if call is not None and type(call[1]) is list and len(call[1]) >= 3 else ""
    return name if type(name) is str else ""
