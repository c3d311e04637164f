"""Messages whose params or result cannot be read, so that this call alone suffers. Sans-I/O; any process.

Such a message passes a bound, or is MessagePack that Python cannot hold. Its head must tell which call it is: if it
does not, the stream is at its end.
"""

from __future__ import annotations

from typing import Any, Callable

from rpccluster.errors import ProtocolError
from rpccluster.protocol.codec import DECODE_ERRORS, make_unpacker, unpack
from rpccluster.protocol.messages import LENGTHS, NOTIFY, RESPONSE, Unreadable, to_message

__all__ = ["decoded", "without_body"]

HEAD_BYTES = 4096  # of a message, within which its method's name must end


def decoded(packed: bytes | bytearray, unpack: Callable[[Any], Any] = unpack) -> Any:
    """What a whole message decodes to, with `Unreadable` in it if need be. Raises `ProtocolError`."""
    try:
        return unpack(packed)
    except ProtocolError as error:
        message = without_body(packed, error)
        if message is None:
            raise
        return message


def without_body(message: list[Any] | bytes | bytearray, error: ProtocolError) -> list[Any] | None:
    """The call or the response that ``message`` is, decoded or packed and perhaps cut short, with `Unreadable` in it.

    None if it is none, or its head does not tell which.
    """
    try:
        head = _head(message)
        call = [*head, Unreadable(error)] if head[0] != RESPONSE else [*head, Unreadable(error), None]
        to_message(call)
    except (ProtocolError, *DECODE_ERRORS):
        return None
    return call


def _head(message: list[Any] | bytes | bytearray) -> list[Any]:
    """Kind, msgid and method, as far as there are any. Raises one of `DECODE_ERRORS`."""
    if isinstance(message, list):
        count, unread = len(message), iter(message)
        read: Callable[[], Any] = unread.__next__
    else:
        unpacker = make_unpacker(HEAD_BYTES, max(LENGTHS.values()))  # nothing in a head is a container
        unpacker.feed(memoryview(message)[:HEAD_BYTES])
        count, read = unpacker.read_array_header(), unpacker.unpack
    if count not in LENGTHS.values():
        raise ValueError("found no message")
    head = [read()]
    if type(head[0]) is not int or LENGTHS.get(head[0]) != count:
        raise ValueError("found no message")
    head += [read() for _ in range(1 if head[0] in (RESPONSE, NOTIFY) else 2)]
    return head
