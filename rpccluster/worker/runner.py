"""The greenlets that run calls, and which call the present one is at. Runs in the worker."""

from __future__ import annotations

from typing import Any, Callable

from greenlet import getcurrent, greenlet

from rpccluster.protocol.codec import make_packer
from rpccluster.worker.caller import Call, Caller

__all__ = ["Runner", "WorkerRetired", "present_call", "present_method"]


class WorkerRetired(BaseException):
    """Thrown into a method that still runs when its worker's ``graceful_timeout`` is over; not an Exception, so
    that a method's own handling of errors lets it through. Callers know it by its name."""


class Runner(greenlet):
    """Runs calls, one after another; ``message`` is the one it is at, unless ``connection`` is None: then it waits.

    ``pack`` is its own: packing a mapping may block in the mapping's ``items()``, and what another packs meanwhile
    with the same Packer would be mixed into the reply.
    """

    __slots__ = ("connection", "message", "pack")

    def __init__(self, run: Callable[[], None], hub: greenlet) -> None:
        super().__init__(run, parent=hub)
        self.connection: Caller | None = None
        self.message: Any = None
        self.renew_packer()

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
