"""The three message types of MessagePack-RPC, and which of them a decoded value is. Sans-I/O; any process.

Source: https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md
"""

from __future__ import annotations

from typing import Any, NamedTuple, Union

from msgpack import ExtType

from rpccluster.errors import ProtocolError

__all__ = [
    "LENGTHS",
    "MAX_MSGID",
    "NOTIFY",
    "REQUEST",
    "RESPONSE",
    "UNREADABLE_TYPE",
    "Message",
    "Notification",
    "Request",
    "Response",
    "Unreadable",
    "misfit_text",
    "not_a_message",
    "to_message",
]

REQUEST = 0
RESPONSE = 1
NOTIFY = 2

#: The number of parts of each message type.
LENGTHS = {REQUEST: 4, RESPONSE: 4, NOTIFY: 3}

#: Type of the extension that stands for `Unreadable` in a repacked message. A peer that sends one fails its own call.
UNREADABLE_TYPE = 127

MAX_MSGID = 2**32 - 1  # "32-bit unsigned integer": spec, "Request Message"


class Unreadable:
    """Stands for unreadable params of a call, or an unreadable error of a response; ``error`` says why.

    It may wait for its turn, so it drops the error's traceback, which would keep the bytes in memory.
    """

    __slots__ = ("error",)

    def __init__(self, error: ProtocolError) -> None:
        error.__traceback__ = error.__context__ = error.__cause__ = None
        self.error = error


class Request(NamedTuple):
    """``[0, msgid, method, params]``. If ``params`` is no list, the server answers with an error."""

    msgid: int
    method: str
    params: Any


class Response(NamedTuple):
    """``[1, msgid, error, result]``; ``error`` is None when the call succeeded."""

    msgid: int
    error: Any
    result: Any


class Notification(NamedTuple):
    """``[2, method, params]``: a call without a reply. ``params`` is a list, `Unreadable`, or its extension."""

    method: str
    params: Any


Message = Union[Request, Response, Notification]


def to_message(value: object) -> Message:
    """Convert a decoded value to its message; a method name of type bin becomes a str.

    Raises `ProtocolError` if ``value`` is no message. A request needs a valid msgid, but its params may be anything.
    """
    if type(value) is list and value and type(value[0]) is int:
        type_, fields = value[0], value[1:]
        if type_ == REQUEST and len(fields) == 3 and _is_msgid(fields[0]) and type(fields[1]) in _NAMES:
            return Request(fields[0], _name_of(fields[1]), fields[2])
        if type_ == RESPONSE and len(fields) == 3 and _is_msgid(fields[0]):
            return Response(*fields)
        if type_ == NOTIFY and len(fields) == 2 and type(fields[0]) in _NAMES and _may_be_params(fields[1]):
            return Notification(_name_of(fields[0]), fields[1])
    raise not_a_message(value)


def not_a_message(value: object) -> ProtocolError:
    """Make the error for a value that is no message. It names the wrong part, and never its repr, which may be long."""
    what = f"an array of {len(value)}" if type(value) is list else f"a value of type {type(value).__name__}"
    expected = f"found {what}, expected a MessagePack-RPC request, response or notification"
    return ProtocolError(f"{expected}; {_wrong_part(value)}" if type(value) is list and value else expected)


def misfit_text(params: Any) -> str:
    """Say what is wrong with the params of a request that are no list."""
    if isinstance(params, Unreadable):
        return str(params.error)
    if _was_unreadable(params):
        return params.data.decode("utf-8", "replace")
    return f"found params of type {type(params).__name__}, expected an array"


def _may_be_params(value: object) -> bool:
    return type(value) is list or isinstance(value, Unreadable) or _was_unreadable(value)


def _was_unreadable(params: object) -> bool:
    """Return whether ``params`` stand for params that the process before could not read."""
    return isinstance(params, ExtType) and params.code == UNREADABLE_TYPE


def _is_msgid(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_MSGID


def _name_of(method: Any) -> str:
    return method if type(method) is str else method.decode("utf-8", "surrogateescape")


def _wrong_part(value: list[Any]) -> str:
    """Describe the first part of an array that does not fit a message."""
    type_, name = value[0], "" if type(value[0]) is not int else _TYPE_NAMES.get(value[0], "")
    if not name:
        return f"it begins with {_shown(type_)}, not with 0, 1 or 2"
    if len(value) != LENGTHS[type_]:
        return f"a {name} has {LENGTHS[type_]} parts"
    if type_ != NOTIFY and not _is_msgid(value[1]):
        return f"the {name}'s msgid is {_shown(value[1])}, not an integer from 0 to {MAX_MSGID}"
    if type_ != RESPONSE and type(value[-2]) not in _NAMES:
        return f"the {name}'s method is {_shown(value[-2])}, neither str nor bin"
    return f"the {name}'s params are {_shown(value[-1])}, not an array"


def _shown(part: object) -> str:
    return str(part) if type(part) is int else f"of type {type(part).__name__}"


_NAMES = {str, bytes}
_TYPE_NAMES = {REQUEST: "request", RESPONSE: "response", NOTIFY: "notification"}
