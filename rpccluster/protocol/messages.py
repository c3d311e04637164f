"""The three messages of MessagePack-RPC, and telling which one a decoded value is. Sans-I/O; any process.

Source: https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md
"""

from __future__ import annotations

from typing import Any, NamedTuple, Union

from rpccluster.errors import ProtocolError

__all__ = [
    "MAX_MSGID",
    "NOTIFY",
    "REQUEST",
    "RESPONSE",
    "Message",
    "Notification",
    "Request",
    "Response",
    "not_a_message",
    "to_message",
]

REQUEST = 0
RESPONSE = 1
NOTIFY = 2

MAX_MSGID = 2**32 - 1  # "32-bit unsigned integer": spec, "Request Message"


class Request(NamedTuple):
    """``[0, msgid, method, params]``."""

    msgid: int
    method: str
    params: list[Any]


class Response(NamedTuple):
    """``[1, msgid, error, result]``; ``error`` is None when the call succeeded."""

    msgid: int
    error: Any
    result: Any


class Notification(NamedTuple):
    """``[2, method, params]``: a call that nobody answers."""

    method: str
    params: list[Any]


Message = Union[Request, Response, Notification]


def to_message(value: object) -> Message:
    """The message that ``value``, as decoded, stands for. Raises `ProtocolError` if it is none."""
    if type(value) is list and value and type(value[0]) is int:
        kind, fields = value[0], value[1:]
        if kind == REQUEST and len(fields) == 3 and _is_msgid(fields[0]) and _is_call(fields[1], fields[2]):
            return Request(*fields)
        if kind == RESPONSE and len(fields) == 3 and _is_msgid(fields[0]):
            return Response(*fields)
        if kind == NOTIFY and len(fields) == 2 and _is_call(fields[0], fields[1]):
            return Notification(*fields)
    raise not_a_message(value)


def not_a_message(value: object) -> ProtocolError:
    """The error for a value that is no message."""
    return ProtocolError(f"found {_describe(value)}, expected a MessagePack-RPC request, response or notification")


def _is_msgid(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_MSGID


def _is_call(method: object, params: object) -> bool:
    return type(method) is str and type(params) is list


def _describe(value: object) -> str:
    """A few words on ``value``; never its repr, which may be deep or long."""
    return f"an array of {len(value)}" if type(value) is list else f"a value of type {type(value).__name__}"
