"""Calls with a deadline at the server, for a connection whose server offers ``rpc.call`` and ``rpc.cancel``. Sans-I/O.

Whether it does is asked by ``rpc.discover``, along with the first call that has a deadline; until the answer has come,
and where it says no, calls go plain. `rpccluster.protocol.bounded` has the form.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Any, Callable

from rpccluster.protocol.bounded import CALL, CANCEL, RESERVED, TIMEOUT, TRACE
from rpccluster.protocol.codec import pack_notify, pack_request
from rpccluster.protocol.messages import REQUEST
from rpccluster.service import find_trace

__all__ = [
    "BOUND_BYTES",
    "Bounded",
    "PlainBody",
    "around",
    "bound",
    "bound_body",
    "may_be_bound",
    "plain_body",
    "trace_here",
]

_DISCOVER = "rpc.discover"

_PREFIX = b"\xa8rpc.call\x93"  # the method, and an array of 3 as params
_TIMEOUT = b"\xa7timeout\xcb"  # a float 64 follows
_TRACE = b"\xa5trace\xd9\x37"  # a str of 55 bytes follows
_ONE, _TWO = b"\x81" + _TIMEOUT, b"\x82" + _TIMEOUT  # maps of one and two keys
_SHORT, _LONG = 18, 18 + len(_TRACE) + 55  # bytes of the options
_RESERVED = RESERVED.encode()
_as_float = struct.Struct(">d").pack


BOUND_BYTES = 100  # at most, that a deadline and a trace add to a call, with one level of nesting


class PlainBody(bytes):
    """A body that only just fits: with a deadline the call would be too large, or nested too deep."""


class Bounded:
    """What one connection knows of its server."""

    def __init__(self) -> None:
        self.is_offered = False
        self.is_asked = False
        self.msgid: int | None = None  # of the question, until it is answered

    def question(self, msgid: int) -> bytes:
        """Pack the question. Ask once."""
        self.is_asked = True
        self.msgid = msgid
        return pack_request(msgid, _DISCOVER, [])

    def note_answer(self, error: Any, result: Any) -> None:
        """Note the reply to the question; from a server that is no such one it may be anything."""
        self.msgid = None
        self.is_offered = error is None and type(result) is dict and CALL in result and CANCEL in result

    def cancellation(self, msgid: int) -> bytes:
        """Pack the notification that ends the call ``msgid``; empty if the server does not take it."""
        return pack_notify(CANCEL, [msgid]) if self.is_offered else b""


def bound(
    pack: Callable[[Any], bytes], msgid: int, method: str, params: Iterable[Any], seconds: float, trace: str | None
) -> bytes:
    """Pack a request that the server ends after ``seconds``."""
    options = {TIMEOUT: seconds} if trace is None else {TIMEOUT: seconds, TRACE: trace}
    return pack((REQUEST, msgid, CALL, (method, params, options)))


def bound_body(body: bytes, seconds: float) -> bytes:
    """Return a packed method and params as the body of a request that the server ends after ``seconds``."""
    before, behind = around(seconds)
    return b"".join((before, body, behind))


def around(seconds: float) -> tuple[bytes, bytes]:
    """Return what `bound_body` puts before a body, and what behind it."""
    trace = trace_here()
    timeout = _as_float(seconds)
    return _PREFIX, _ONE + timeout if trace is None else b"".join((_TWO, timeout, _TRACE, trace.encode()))


def plain_body(body: bytes) -> bytes:
    """Return the packed method and params of a ``body`` that `bound_body` or `bound` may have made."""
    if not body.startswith(_PREFIX):
        return body
    if body[-_SHORT:-8] == _ONE:
        return body[len(_PREFIX) : -_SHORT]
    if body[-_LONG : 10 - _LONG] == _TWO and body[18 - _LONG : -55] == _TRACE:
        return body[len(_PREFIX) : -_LONG]
    return body


def may_be_bound(body: bytes, seconds: float) -> bool:
    """Return whether a call with this body has a deadline, fits with it, and is one of a method of the service."""
    return seconds < math.inf and type(body) is bytes and body[1:5] != _RESERVED and body[2:6] != _RESERVED


def trace_here() -> str | None:
    """Return the traceparent that a call from here passes on: in a worker, that of the call that runs here."""
    trace = find_trace()
    return trace if trace is not None and len(trace) == 55 else None
