"""Makes the replies of calls that end without a plain result, and keeps a reply's size limit. Runs in the worker.

Decides and logs; `rpccluster.worker.hot.slow_path` puts the replies into an outbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from rpccluster.errors import NotLeader, ProtocolError, Refusal
from rpccluster.failure import error_text, message_of
from rpccluster.ipc.scoreboard import Cell
from rpccluster.log import escaped, logger
from rpccluster.protocol.bounded import DEADLINE_PASSED
from rpccluster.protocol.codec import pack_response
from rpccluster.protocol.messages import Notification, Request, Unreadable, misfit_text
from rpccluster.worker.current import CallTimedOut, Cancelled, Sender
from rpccluster.worker.hot.control.terms import Expired
from rpccluster.worker.live_options import LiveOptions
from rpccluster.worker.service.call_errors import Denied, Misfit, Told, is_misfit

__all__ = ["Replies", "ResultTooLarge", "not_found_text"]

_ERRORS = int(Cell.ERRORS)


class ResultTooLarge(Exception):
    """A method's packed result is larger than a message may be. Callers see its name."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"found a reply of {size} bytes, expected at most {most} (max_message_size)")


class Replies:
    """Makes replies with errors, and counts the errors."""

    def __init__(
        self,
        methods: Mapping[str, Any],
        cells: Any,
        options: LiveOptions,
        on_refused: Callable[[str, ProtocolError], None],
    ) -> None:
        """``methods`` are the service's, by name; ``on_refused`` gets the peer and error of each unreadable call."""
        self._methods = methods
        self._cells = cells
        self.options = options
        self._on_refused = on_refused
        self._errors = 0

    def bounded(self, sender: Sender, call: Any, reply: bytes) -> bytes:
        """Return ``reply``, or an error if it passes ``max_message_size``. May block, as `error` may."""
        error = self.too_large(reply)
        if error is None:
            return reply
        _, msgid, name, params = call
        return pack_response(msgid, self.error(sender, name, params, error), None)

    def too_large(self, reply: bytes) -> ResultTooLarge | None:
        """Return the error to send instead of ``reply``, if that passes ``max_message_size``; else None."""
        most = self.options.max_message_size
        return ResultTooLarge(len(reply), most) if len(reply) > most else None

    def refused(self, sender: Sender, call: Request | Notification) -> bytes:
        """Return the reply to a call whose params are no list; a notification gets a log line only. May block."""
        text = misfit_text(call.params)
        self.count_error()
        error = call.params.error if isinstance(call.params, Unreadable) else ProtocolError(text)
        self._on_refused(sender.peer, error)
        return pack_response(call.msgid, f"ArgumentError: {text}", None) if isinstance(call, Request) else b""

    def error(self, sender: Sender, name: str, params: list[Any], raised: BaseException) -> str:
        """Return the error text for an exception of a method, and log the traceback.

        Never raises, but runs code of the service, which may block: an exception's ``__str__``, for instance.
        """
        self.count_error()
        if type(raised) is Denied:
            return raised.text
        method = self._methods.get(name)
        if method is None:
            return not_found_text(name)
        if issubclass(type(raised), TypeError) and is_misfit(method.plain, params):
            return f"ArgumentError: {message_of(raised)}"
        return self.told(sender, name, raised)

    def told(self, sender: Sender, name: str, raised: BaseException) -> str:
        """Return the error text for ``raised``, and log it, but do not count it. Runs in any thread; may block."""
        if type(raised) is Misfit:
            return f"ArgumentError: {message_of(raised.error)}"
        if type(raised) is Cancelled or type(raised) is Expired:  # the caller knows, and there may be very many
            return error_text(raised)
        if type(raised) is CallTimedOut and raised.args == (DEADLINE_PASSED,):  # likewise
            return f"TimeoutError: {DEADLINE_PASSED}"
        if type(raised) is CallTimedOut:
            raised = TimeoutError(*raised.args).with_traceback(raised.__traceback__)
        if type(raised) is Told:
            text, more = raised.text, escaped(raised.traceback)
            logger.warning("Method %s failed for %s: %s %s", escaped(name), sender.peer, escaped(text), more)
            return text
        text = error_text(raised)
        if issubclass(type(raised), (NotLeader, Refusal)):  # as callers expect: no fault of anybody's
            return text
        logger.warning("Method %s failed for %s: %s", escaped(name), sender.peer, escaped(text), exc_info=raised)
        return text

    def count_error(self) -> None:
        """Count one more error."""
        self._errors += 1
        self._cells[_ERRORS] = self._errors

    def leave_at_exit(self, leave: Callable[[int], None]) -> None:
        """Let a SystemExit of a method end the process, in a forked child."""
        answer = self.error

        def error(sender: Sender, name: str, params: list[Any], raised: BaseException) -> str:
            if isinstance(raised, SystemExit):
                leave(raised.code if isinstance(raised.code, int) else raised.code is not None)
            return answer(sender, name, params, raised)

        self.error = error  # type: ignore[method-assign]


def not_found_text(name: object) -> str:
    """Return the error for an unknown method, in the words of msgpack-rpc-python."""
    return f"'{name}' method not found"
