"""Messages that the engine's hot path does not take: notifications, those not decoded yet, and what is no call.

Runs in the worker, in the engine's runners.
"""

from __future__ import annotations

from typing import Any

from rpccluster.errors import ProtocolError
from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.protocol.codec import pack_response
from rpccluster.protocol.messages import Notification, Request, Response, to_message
from rpccluster.protocol.shared import Packed
from rpccluster.protocol.unreadable import decoded
from rpccluster.worker.hot.caller import Caller
from rpccluster.worker.hot.replies import Replies
from rpccluster.worker.hot.runner import Runner
from rpccluster.worker.service.registry import Registry

__all__ = ["SlowPath"]

LARGE_CALL_BYTES = 65_536  # calls above this take memory that is worth keeping for the next

_RUNNING_METHOD = int(CommonCell.RUNNING)


class SlowPath:
    """Runs one such message."""

    def __init__(self, registry: Registry, cells: Any, replies: Replies) -> None:
        self._registry = registry
        self._cells = cells
        self._replies = replies

    def take(self, runner: Runner, connection: Caller, message: Any) -> bool:
        """Run it; what is no call ends its connection. Returns whether it was large. May block."""
        is_large = type(message) is Packed and len(message) > LARGE_CALL_BYTES
        if isinstance(message, ProtocolError):  # not raised again: it would hold all that it came through
            connection.refuse(message)
            return False
        try:
            if type(message) is Packed:
                message = runner.message = decoded(message)
            call = to_message(message)
            if isinstance(call, Response):
                raise ProtocolError("found a response, expected calls alone")
        except ProtocolError as error:
            connection.refuse(error)
        else:
            message[-2] = call.method  # it may have come as bin
            self._run(runner, connection, call)
        return is_large

    def rename(self, message: list[Any]) -> None:
        """Give a request, whose method's name is of bin type, one of str: it may be run then like any other."""
        message[2] = to_message(message)[1]

    def _run(self, runner: Runner, connection: Caller, call: Request | Notification) -> None:
        try:
            if type(call.params) is list:
                function = self._registry.table[call.method]
                self._cells[_RUNNING_METHOD] = self._registry.numbers[call.method]
                result = function(*call.params)
                data = pack_response(call.msgid, None, result) if isinstance(call, Request) else b""
            else:
                data = self._replies.refused(connection, call)
        except BaseException as raised:
            data = self._replies.failed(runner, raised)
        if isinstance(call, Request):
            self._replies.put_late(runner, data)
        elif runner.connection is not None:  # nobody is told
            connection.end_notification()
