"""Converts the error of a reply to the exception that the caller gets. Pure; the client's process.

The forms are those of the contract: ``Class: message``, and ``'NAME' method not found`` in the words of
msgpack-rpc-python. Any other error becomes a `RemoteError` without a type.
"""

from __future__ import annotations

import re
import reprlib

from rpccluster.errors import ArgumentError, CallError, CallTimeout, LeadLost, NoMethodError, NotLeader, RemoteError
from rpccluster.protocol.bounded import DEADLINE_PASSED

__all__ = ["remote_error"]

_CLASS_AND_MESSAGE = re.compile(r"([A-Za-z_][\w.]*): (.*)\Z", re.DOTALL)
_NO_METHOD = re.compile(r"'.*' method not found\Z", re.DOTALL)
_MOST_TEXT = 2000  # characters of a foreign error: enough to see what it is

_KINDS = {kind.__name__: kind for kind in (ArgumentError, LeadLost, NotLeader)}

_bounded = reprlib.Repr()
_bounded.maxstring = _bounded.maxother = 200
_bounded.maxlist = _bounded.maxdict = 20


def remote_error(error: object) -> CallError:
    """Make the exception for the ``error`` of a reply, which is not None."""
    if type(error) is list and len(error) == 2 and type(error[0]) is int and type(error[1]) in (str, bytes):
        error = error[1]  # as Neovim words it: [kind, text]
    if isinstance(error, bytes):
        error = error.decode("utf-8", "surrogateescape")
    if not isinstance(error, str):
        return RemoteError("", _bounded.repr(error)[:_MOST_TEXT])
    if _NO_METHOD.match(error):
        return NoMethodError("NoMethodError", error)
    match = _CLASS_AND_MESSAGE.match(error)
    if match is None:
        return RemoteError("", error)
    if match[1] == "TimeoutError" and match[2] == DEADLINE_PASSED:
        return CallTimeout("the server has ended the call at its deadline")
    return _KINDS.get(match[1], RemoteError)(match[1], match[2])
