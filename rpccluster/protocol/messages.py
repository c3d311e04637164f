"""The three messages of MessagePack-RPC, and telling which one a decoded value is. Sans-I/O; any process.

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

#: The parts of each.
LENGTHS = {REQUEST: 4, RESPONSE: 4, NOTIFY: 3}

#: Of the extension that `Unreadable` becomes where a message is packed again; who sends one refuses its own call.
UNREADABLE_TYPE = 127

MAX_MSGID = 2**32 - 1  # "32-bit unsigned integer": spec, "Request Message"


class Unreadable:
    """Stands for the params of a call, or the error of a response, that could not be read; ``error`` tells why.

    It may wait for its turn, and so keeps nothing of how it came about: a traceback would hold the bytes.
    """

    __slots__ = ("error",)

    def __init__(self, error: ProtocolError) -> None:
        error.__traceback__ = error.__context__ = error.__cause__ = None
        self.error = error


class Request(NamedTuple):
    """``[0, msgid, method, params]``. If ``params`` are no list, its caller is owed an error."""

    msgid: int
    method: str
    params: Any


class Response(NamedTuple):
    """``[1, msgid, error, result]``; ``error`` is None when the call succeeded."""

    msgid: int
    error: Any
    result: Any


class Notification(NamedTuple):
    """``[2, method, params]``: a call that nobody answers. ``params`` are a list, or `Unreadable` (moved or not)."""

    method: str
    params: Any


Message = Union[Request, Response, Notification]


def to_message(value: object) -> Message:
    """The message that ``value``, as decoded, stands for, a method's name of bin type as str.

    Raises `ProtocolError` if it is none. A request with a good msgid is one whatever its params are.
    """
    if type(value) is list and value and type(value[0]) is int:
        kind, fields = value[0], value[1:]
        if kind == REQUEST and len(fields) == 3 and _is_msgid(fields[0]) and type(fields[1]) in _NAMES:
            return Request(fields[0], _name_of(fields[1]), fields[2])
        if kind == RESPONSE and len(fields) == 3 and _is_msgid(fields[0]):
            return Response(*fields)
        if kind == NOTIFY and len(fields) == 2 and type(fields[0]) in _NAMES and _may_be_params(fields[1]):
            return Notification(_name_of(fields[0]), fields[1])
    raise not_a_message(value)


def not_a_message(value: object) -> ProtocolError:
    """The error for a value that is no message: which part of it is wrong, and never its repr, which may be long."""
    what = f"an array of {len(value)}" if type(value) is list else f"a value of type {type(value).__name__}"
    expected = f"found {what}, expected a MessagePack-RPC request, response or notification"
    return ProtocolError(f"{expected}; {_wrong_part(value)}" if type(value) is list and value else expected)


def misfit_text(params: Any) -> str:
    """What is wrong with the params of a request that are no list."""
    if isinstance(params, Unreadable):
        return str(params.error)
    if _was_unreadable(params):
        return params.data.decode("utf-8", "replace")
    return f"found params of type {type(params).__name__}, expected an array"


def _may_be_params(value: object) -> bool:
    return type(value) is list or isinstance(value, Unreadable) or _was_unreadable(value)


def _was_unreadable(params: object) -> bool:
    """In the process that it comes from."""
    return isinstance(params, ExtType) and params.code == UNREADABLE_TYPE


def _is_msgid(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_MSGID


def _name_of(method: Any) -> str:
    return method if type(method) is str else method.decode("utf-8", "surrogateescape")


def _wrong_part(value: list[Any]) -> str:
    """The first part of an array that is not as a message's."""
    kind, name = value[0], "" if type(value[0]) is not int else _KINDS.get(value[0], "")
    if not name:
        return f"it begins with {_shown(kind)}, not with 0, 1 or 2"
    if len(value) != LENGTHS[kind]:
        return f"a {name} has {LENGTHS[kind]} parts"
    if kind != NOTIFY and not _is_msgid(value[1]):
        return f"the {name}'s msgid is {_shown(value[1])}, not an integer from 0 to {MAX_MSGID}"
    if kind != RESPONSE and type(value[-2]) not in _NAMES:
        return f"the {name}'s method is {_shown(value[-2])}, neither str nor bin"
    return f"the {name}'s params are {_shown(value[-1])}, not an array"


def _shown(part: object) -> str:
    return str(part) if type(part) is int else f"of type {type(part).__name__}"


_NAMES = {str, bytes}
_KINDS = {REQUEST: "request", RESPONSE: "response", NOTIFY: "notification"}
