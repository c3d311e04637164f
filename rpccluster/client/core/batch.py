"""Many calls in one write: gathers them, and holds the outcome of each afterwards.

The part that both faces share; each face sends and waits in its own way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rpccluster.client.core.attempts import Attempts
from rpccluster.client.core.exchange.call import Call, CallState
from rpccluster.client.core.exchange.outgoing import body_packer
from rpccluster.errors import CallTimeout, ConnectionLost, Lost, NotLeader
from rpccluster.protocol.outline import Bounds

__all__ = ["Batch"]

_ANSWERED = CallState.ANSWERED
_new = Call.__new__  # its constructor sets what a call of a batch gets later, and takes half of the time of adding one


class Batch:
    """Calls in the order in which they were added; iterating gives their results in that order.

    Params are packed at once: params that cannot be packed raise where the call is added, and a list that changes later
    does not change the call.
    """

    def __init__(self, idempotent: bool, attempts: Attempts, bounds: Bounds) -> None:
        self._idempotent = idempotent
        self._attempts = attempts
        self._pack = body_packer(bounds)
        self._calls: list[Call] = []
        self._bodies: list[bytes] = []
        self._was_sent = False

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Any]:
        return (call.result() for call in self._calls)

    def call(self, method: str, *params: Any) -> Call:
        """Add a call. After the batch, its ``result()`` returns the result or raises the call's error."""
        self._bodies.append(self._pack(method, params))
        call = _new(Call)
        self._calls.append(call)
        return call

    def results(self) -> list[Any]:
        """Return the results in order. Raises the error of the first call that has one."""
        return [call.value if call.state is _ANSWERED and call.error is None else call.result() for call in self._calls]

    def _open(self, deadline_at: float) -> tuple[list[Call], list[bytes]]:
        """Return the calls to send, for the first time or again, with their bodies; renew them with a deadline."""
        if not self._was_sent:
            self._was_sent = True
            for call in self._calls:
                call.deadline_at = deadline_at
            return self._calls, self._bodies
        pairs = [pair for pair in zip(self._calls, self._bodies) if self._is_to_be_sent(pair[0])]
        for call, _ in pairs:
            call.renew(deadline_at)
        return [call for call, _ in pairs], [body for _, body in pairs]

    def _check(self) -> None:
        """Note that calls had no reply in time; raise the error of a call that may be sent again."""
        if all(map(_has_result, self._calls)):
            return
        if any(isinstance(call.error, CallTimeout) for call in self._calls):
            self._attempts.timed_out()
        for call in self._calls:
            if self._is_to_be_sent(call) and call.error is not None:
                raise call.error

    def _fail(self, error: Exception) -> None:
        """Raise ``error``, with which sending has failed, unless some calls have got further and hold their own."""
        if any(call.is_over or call.error for call in self._calls):
            return
        for call in self._calls:
            call.error = error
        raise error

    def _is_to_be_sent(self, call: Call) -> bool:
        if not call.is_over:
            return True
        error = call.error
        if isinstance(error, NotLeader):
            return self._attempts.follows
        return isinstance(error, ConnectionLost) and (self._idempotent or not isinstance(error, Lost))


def _has_result(call: Call) -> bool:
    return call.state is _ANSWERED and call.error is None
