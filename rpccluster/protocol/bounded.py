"""The names and texts of calls with a deadline and of their cancellation. Data; worker and client.

``rpc.call [METHOD, PARAMS, {"timeout": S, "trace": …}]`` calls METHOD, and ends S seconds after it has come at the
latest. The notification ``rpc.cancel [MSGID]`` ends the calls of its connection with that id.
"""

from __future__ import annotations

import re

__all__ = ["CALL", "CANCEL", "CANCELLED", "DEADLINE_PASSED", "GONE", "RESERVED", "TIMEOUT", "TRACE", "is_traceparent"]

RESERVED = "rpc."  # names that begin so are the package's own
CALL = "rpc.call"
CANCEL = "rpc.cancel"

TIMEOUT = "timeout"
TRACE = "trace"

CANCELLED = "the caller has cancelled the call"
GONE = "the connection of the caller has ended"
DEADLINE_PASSED = "the deadline of the call has passed"

#: https://www.w3.org/TR/trace-context/#traceparent-header-field-values; later versions may append fields.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.{0,200})?\Z")


def is_traceparent(value: object) -> bool:
    """Return whether ``value`` is a traceparent of W3C's Trace Context."""
    return type(value) is str and _TRACEPARENT.match(value) is not None and (len(value) == 55 or value[:2] != "00")
