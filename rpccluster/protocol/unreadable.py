"""Replaces unreadable params or results, so that only their own call fails. Sans-I/O; any process.

Such a message passes a bound, or Python cannot hold it. If its head does not tell which call it is, the stream ends.
"""

from __future__ import annotations

from typing import Any, Callable

from rpccluster.errors import ProtocolError
from rpccluster.protocol.codec import DECODE_ERRORS, make_unpacker, unpack
from rpccluster.protocol.messages import LENGTHS, NOTIFY, RESPONSE, Unreadable, to_message

__all__ = ["decoded", "without_body"]

HEAD_BYTES = 4096  # from the beginning of a message to the end of its method's name, at most


def decoded(packed: bytes | bytearray, unpack: Callable[[Any], Any] = unpack) -> Any:
    """Decode a whole message, with `Unreadable` in place of what cannot be read. Raises `ProtocolError`."""
    try:
        return unpack(packed)
    except ProtocolError as error:
        message = without_body(packed, error)
        if message is None:
            raise
        return message


def without_body(message: list[Any] | bytes | bytearray, error: ProtocolError) -> list[Any] | None:
    """Rebuild the call or response from the head of ``message``, with `Unreadable` in place of its body.

    ``message`` is decoded or packed, and may be cut short. Returns None if its head tells no call or response.
    """
    try:
        head = _head(message)
        call = [*head, Unreadable(error)] if head[0] != RESPONSE else [*head, Unreadable(error), None]
        to_message(call)
    except (ProtocolError, *DECODE_ERRORS):
        return None
    return call


def _head(message: list[Any] | bytes | bytearray) -> list[Any]:
    """Decode type, msgid and method, as far as the message has them. Raises one of `DECODE_ERRORS`."""
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
