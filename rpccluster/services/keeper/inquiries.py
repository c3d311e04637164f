"""Answers what the master asks the keeper for the control socket: methods of queues that need no consumer's session.

Params and answers are MessagePack bytes, as on the wire: the master passes them on as they are. Runs in the keeper.
"""

from __future__ import annotations

from typing import Any, Callable

from rpccluster.failure import error_text, message_of
from rpccluster.ipc.messages import Findings, Inquire
from rpccluster.protocol.codec import make_packer, unpack
from rpccluster.service import Later
from rpccluster.services.keeper.service import Keeper
from rpccluster.worker.service.call_errors import Misfit, is_misfit

__all__ = ["MOST_BYTES", "Inquiries"]

MOST_BYTES = 1 << 20  # of an answer; a consumer of its own may ask the keeper for more


class Inquiries:
    """What the master has asked ``keeper``."""

    def __init__(self, keeper: Keeper, say: Callable[[Findings], object]) -> None:
        """``say`` tells the master."""
        self._methods: dict[str, Callable[..., Later]] = {
            "list": keeper.list_,
            "stats": keeper.stats,
            "peek": keeper.peek,
            "dead": keeper.dead,
            "put": keeper.put,
            "retry": keeper.retry,
            "purge": keeper.purge,
            "pause": keeper.pause,
            "resume": keeper.resume,
        }
        self._say = say

    def hear(self, inquiry: Inquire) -> None:
        """Begin to answer ``inquiry``. It is not answered if the keeper ends before that."""
        method, params = self._methods[inquiry.what], unpack(inquiry.params[0])
        call = _Inquired(inquiry.number, self._say)
        try:
            later: Later = method(*params)
        except Exception as error:  # as a caller of the keeper would be told
            call.fail(Misfit(error) if isinstance(error, TypeError) and is_misfit(method, params) else error)
            return
        call.later = later
        if later._outcome is None:
            later._call = call
        else:
            call.answer()


class _Inquired:
    """A call of the master's: stands where those of other callers have the worker's record."""

    def __init__(self, number: int, say: Callable[[Findings], object]) -> None:
        self._number = number
        self._say = say
        self.later: Any = None

    def answer(self) -> None:
        """Send the outcome."""
        error, value = self.later._outcome
        self.later._call = None  # or the two would keep each other
        if error is not None:
            self.fail(error)
            return
        data = value if isinstance(value, bytes) else make_packer().pack(value)
        if len(data) > MOST_BYTES:
            error = ValueError(f"found an answer of {len(data)} bytes, expected at most {MOST_BYTES}: ask for fewer")
            self.fail(error)
        else:
            self._say(Findings(self._number, bytes(data)))

    def fail(self, error: BaseException) -> None:
        """Send the text of ``error``."""
        text = f"ArgumentError: {message_of(error.error)}" if isinstance(error, Misfit) else error_text(error)
        self._say(Findings(self._number, None, text))
