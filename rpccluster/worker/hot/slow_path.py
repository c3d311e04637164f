"""The slow path: what the hot path leaves out, since most calls are plain requests that succeed. Runs in the runners.

It takes notifications, undecoded calls and values that are no call, and ends calls that have failed, have blocked, or
have a large reply. Everything here may block, since it runs code of the service.
"""

from __future__ import annotations

from typing import Any

from rpccluster.errors import ProtocolError
from rpccluster.ipc.scoreboard import Cell, CommonCell
from rpccluster.protocol.closing import CLOSING
from rpccluster.protocol.codec import pack_response
from rpccluster.protocol.messages import (
    REQUEST,
    RESPONSE,
    Notification,
    Request,
    Response,
    not_a_message,
    to_message,
)
from rpccluster.protocol.shared import Packed
from rpccluster.protocol.unreadable import decoded
from rpccluster.worker.current import Runner
from rpccluster.worker.hot.outbox import Outbox
from rpccluster.worker.hot.replies import Replies
from rpccluster.worker.hot.room import Room
from rpccluster.worker.service.later import HeldBack, Parked
from rpccluster.worker.service.registry import Registry

__all__ = ["SlowPath", "rename"]

LARGE_CALL_BYTES = 65_536  # calls above this take memory that is worth keeping for the next
REUSED_BYTES = 65_536  # a Packer that held a larger reply is not kept: its buffer never shrinks

RESULT_TOO_LARGE, MISFIT = "ResultTooLarge", "ArgumentError"  # how the errors begin that are told then

_RUNNING_METHOD = int(CommonCell.RUNNING)
_MAX_GREENLETS = int(Cell.MAX_GREENLETS)


class SlowPath:
    """Runs one message, or ends one call, of a runner."""

    def __init__(self, room: Room, registry: Registry, cells: Any, replies: Replies) -> None:
        self._room = room
        self._tally = room.tally
        self._registry = registry
        self._cells = cells
        self.replies = replies

    def put(self, runner: Runner, reply: bytes | None) -> None:
        """Send ``reply``, if there is one, for a call that is large or has blocked; it may have been answered already.

        May block, as `Replies.error` may.
        """
        if not reply:
            return
        if len(reply) > REUSED_BYTES:
            runner.renew_packer()
        if len(reply) > self.replies.options.max_message_size and runner.outbox is not None:
            reply = self.replies.bounded(runner.outbox, runner.call, reply)
        if runner.outbox is not None:
            runner.outbox.put(reply)

    def put_late(self, runner: Runner, reply: bytes | None) -> None:
        """Send ``reply`` as `put` does, unless the call was interrupted and has to end with that."""
        interruption = runner.take_interruption() if reply else None
        self.put(runner, reply if interruption is None else self.failed(runner, interruption))

    def put_result(self, runner: Runner, reply: bytes) -> None:
        """Send the result of a call that is counted as `put_late` does, and count it."""
        interruption = runner.take_interruption()
        if interruption is None:
            self._count_result(runner, reply)
            self.put(runner, reply)
        else:
            self.put(runner, self.failed(runner, interruption))

    def _count_result(self, runner: Runner, reply: bytes) -> None:
        """Count a call that has a result, unless it was answered already."""
        if runner.outbox is not None:
            self._tally.end(runner, RESULT_TOO_LARGE if len(reply) > self.replies.options.max_message_size else "")

    def failed(self, runner: Runner, raised: BaseException) -> Any:
        """Return the bytes to send for a call that has raised: empty for nothing, None if it runs on, or runs later.

        May block, as `Replies.error` may.
        """
        outbox, call = runner.outbox, runner.call
        if type(raised) is Parked:
            raised.interruption = runner.interruption
            self._tally.park(runner, raised)
            try:
                self._room.parked.park(outbox, call, raised)
                return None
            except RuntimeError as error:
                raised = error
        elif type(raised) is HeldBack:
            self._cells[_MAX_GREENLETS] += raised.kind is None
            self._room.hold(raised.kind, outbox, call, self._tally.arrived_at())
            return None
        if outbox is None:  # answered already
            return b""
        raised = runner.take_interruption() or raised
        name, params = call[-2:]
        if type(name) is not str:
            outbox.refuse(not_a_message(call))
            return b""
        if name == CLOSING and call[0] is REQUEST and outbox.await_closing(call[1]):
            return b""  # until nothing more is read
        text = self.replies.error(outbox, name, params, raised)
        self._tally.end(runner, text)
        return runner.renew_packer()((RESPONSE, call[1], text, None)) if call[0] is REQUEST else b""

    def take(self, runner: Runner, outbox: Outbox, message: Any, arrived_at: float = 0.0) -> None:
        """Run ``message``; if it is no call, end its connection. May block.

        It came at ``arrived_at`` if it was held back, else just now.
        """
        if isinstance(message, ProtocolError):  # not raised again: it would hold all that it came through
            outbox.refuse(message)
            return
        is_large = type(message) is Packed and len(message) > LARGE_CALL_BYTES
        try:
            if type(message) is Packed:
                message = runner.call = decoded(message)
            call = to_message(message)
            if isinstance(call, Response):
                raise ProtocolError("found a response, expected calls alone")
        except ProtocolError as error:
            outbox.refuse(error)
        else:
            message[-2] = call.method  # it may have come as bin
            self._run(runner, outbox, call, arrived_at)
        if is_large:
            self._room.handled_large = True
            if outbox.held:
                self._room.crowd(outbox)

    def _run(self, runner: Runner, outbox: Outbox, call: Request | Notification, arrived_at: float) -> None:
        self._tally.begin(runner, arrived_at)
        try:
            if type(call.params) is list:
                function = outbox.tables[runner.which][call.method]
                self._cells[_RUNNING_METHOD] = self._registry.numbers[call.method]
                result = function(*call.params)
                interruption = runner.take_interruption()
                if interruption is not None:
                    raise interruption
                reply = pack_response(call.msgid, None, result) if isinstance(call, Request) else b""
                self._count_result(runner, reply)
            else:
                reply = self.replies.refused(outbox, call)
                self._tally.end(runner, MISFIT)
        except BaseException as raised:
            reply = self.failed(runner, raised)
            if reply is None:
                return
        if isinstance(call, Request):
            self.put(runner, reply)
        elif runner.outbox is not None:  # nobody is told
            runner.outbox.end_notification()


def rename(call: list[Any]) -> None:
    """Convert the name of a request's method from bin to str, so that it can be run like any other."""
    call[2] = to_message(call)[1]
