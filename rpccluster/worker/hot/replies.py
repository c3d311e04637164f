"""What becomes of a call's end: a reply within bounds, or an error's text, among those that its connection sends next.

Runs in the worker, for the engine.
"""

from __future__ import annotations

from typing import Any, Callable

from rpccluster.errors import ProtocolError
from rpccluster.ipc.scoreboard import Cell
from rpccluster.log import escaped, logger
from rpccluster.protocol.closing import CLOSING
from rpccluster.protocol.codec import pack_response
from rpccluster.protocol.messages import (
    REQUEST,
    RESPONSE,
    Notification,
    Request,
    Unreadable,
    misfit_text,
    not_a_message,
)
from rpccluster.worker.hot.caller import Caller
from rpccluster.worker.hot.runner import CallTimedOut, Runner
from rpccluster.worker.service.registry import (
    Registry,
    ResultTooLarge,
    error_text,
    is_misfit,
    message_of,
    not_found_text,
)

__all__ = ["LARGE_REPLY_BYTES", "Replies"]

REUSED_BYTES = 65_536  # a Packer that held a larger reply is not kept: its buffer never shrinks
LARGE_REPLY_BYTES = 512  # replies above this count against the connection at once

_ERRORS = int(Cell.ERRORS)


class Replies:
    """``gathered_by`` are the connections that have something to send at the end of this turn."""

    def __init__(self, registry: Registry, cells: Any, max_size: int) -> None:
        self._registry = registry
        self._cells = cells
        self._max_size = max_size  # bytes of one reply
        self._errors = 0
        self.gathered_by: list[Caller] = []

    def put(self, connection: Caller, data: bytes) -> None:
        """Behind those of ``connection``."""
        if not connection.out:
            self.gathered_by.append(connection)
        connection.out.append(data)
        if len(data) > LARGE_REPLY_BYTES:
            connection.gather(len(data))

    def send(self) -> None:
        """All that has gathered."""
        for connection in self.gathered_by:
            connection.flush()
        self.gathered_by.clear()

    def put_late(self, runner: Runner, data: bytes) -> None:
        """The reply of a call that has blocked; it may have been answered meanwhile."""
        if len(data) > LARGE_REPLY_BYTES:
            data = self.bounded(runner, data)
        if data and runner.connection is not None:
            self.put(runner.connection, data)

    def bounded(self, runner: Runner, data: bytes) -> bytes:
        """What is sent for a large reply: an error if it passes ``max_message_size``. May block, as `error` may."""
        if len(data) > REUSED_BYTES:
            runner.renew_packer()
        if len(data) <= self._max_size or runner.connection is None:
            return data
        _, msgid, name, params = runner.message
        error = ResultTooLarge(len(data), self._max_size)
        return pack_response(msgid, self.error(runner.connection, name, params, error), None)

    def failed(self, runner: Runner, raised: BaseException) -> bytes:
        """What is sent for a request that has raised; empty if nothing is. May block, as `error` may."""
        connection, message = runner.connection, runner.message
        if connection is None:  # answered already
            return b""
        name, params = message[-2:]
        if type(name) is not str:
            connection.refuse(not_a_message(message))
            return b""
        if name == CLOSING and message[0] is REQUEST and connection.await_closing(message[1]):
            return b""  # until nothing more is read
        text = self.error(connection, name, params, raised)
        return runner.renew_packer()((RESPONSE, message[1], text, None)) if message[0] is REQUEST else b""

    def give_up(self, connection: Caller, message: list[Any], error: BaseException) -> None:
        """Answer a call, with ``error``, that goes on in spite of it."""
        name, params = message[-2:]
        text = self.error(connection, name, params, error)
        logger.warning("Method %s goes on in spite of that; whatever comes of it is dropped", escaped(name))
        if message[0] is REQUEST:
            self.put(connection, pack_response(message[1], text, None))
        else:
            connection.end_notification()

    def leave_at_exit(self, leave: Callable[[int], None]) -> None:
        """In a forked child: a SystemExit that comes out of the method means what it says."""
        answer = self.error

        def error(connection: Caller, name: str, params: list[Any], raised: BaseException) -> str:
            if isinstance(raised, SystemExit):
                leave(raised.code if isinstance(raised.code, int) else raised.code is not None)
            return answer(connection, name, params, raised)

        self.error = error  # type: ignore[method-assign]

    def refused(self, connection: Caller, call: Request | Notification) -> bytes:
        """What is sent for a call whose params are no list; of a notification the log alone is told. May block."""
        text = misfit_text(call.params)
        self._count_error()
        connection.note_unread(call.params.error if isinstance(call.params, Unreadable) else ProtocolError(text))
        return pack_response(call.msgid, f"ArgumentError: {text}", None) if isinstance(call, Request) else b""

    def _count_error(self) -> None:
        self._errors += 1
        self._cells[_ERRORS] = self._errors

    def error(self, connection: Caller, name: str, params: list[Any], raised: BaseException) -> str:
        """The reply's error for what a method raised; the traceback goes to the log.

        Never raises, but runs code of the service, which may block: an exception's ``__str__``, for instance.
        """
        self._count_error()
        method = self._registry.methods.get(name)
        if method is None:
            return not_found_text(name)
        if issubclass(type(raised), TypeError) and is_misfit(method, params):
            return f"ArgumentError: {message_of(raised)}"
        if type(raised) is CallTimedOut:
            raised = TimeoutError(*raised.args).with_traceback(raised.__traceback__)
        text = error_text(raised)
        logger.warning("Method %s failed for %s: %s", escaped(name), connection.peer, escaped(text), exc_info=raised)
        return text
