"""The last word of a server on a connection, for a client that has asked for it. Sans-I/O; worker and client.

A client asks once a connection, by the request `CLOSING` without params. A server that knows it keeps the request
until it stops reading the connection, and then replies with the msgids of the requests that it will still answer.
It has read nothing beyond what it has answered and these: whatever else the client sent certainly did not run. A
server that does not know it replies at once that there is no such method, which says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack

from rpccluster.protocol.codec import pack_request, pack_response
from rpccluster.protocol.messages import REQUEST

__all__ = ["CLOSING", "closing_request", "closing_response", "due_of", "msgids_of"]

#: The method's name; names that begin with "rpc." are reserved.
CLOSING = "rpc.closing"

_DUE = "due"  # a map's key, lest the echo of a server that answers to any name be taken for the word
_HEAD_BYTES = 32  # an array's header, a kind and a msgid in their longest forms take less


def closing_request(msgid: int) -> bytes:
    """What the client sends."""
    return pack_request(msgid, CLOSING, [])


def closing_response(msgid: int, due: Iterable[int]) -> bytes:
    """The word: the requests with msgids in ``due`` will be answered, and no other."""
    return pack_response(msgid, None, {_DUE: list(due)})


def due_of(error: Any, result: Any) -> frozenset[int] | None:
    """What a reply to `CLOSING` says; None if it is not the word."""
    due = result.get(_DUE) if error is None and type(result) is dict else None
    if type(due) is not list or any(type(msgid) is not int for msgid in due):
        return None
    return frozenset(due)


def msgids_of(messages: Iterable[Any]) -> list[int]:
    """The msgids of the requests among ``messages``, which are decoded, or whole and still packed."""
    heads = (_head(message) if isinstance(message, bytearray) else message for message in messages)
    return [head[1] for head in heads if type(head) is list and len(head) == 4 and type(head[1]) is int]


def _head(packed: bytearray) -> list[Any]:
    """As many values as the message has; those behind the second are None."""
    unpacker = msgpack.Unpacker(raw=True)
    unpacker.feed(packed[:_HEAD_BYTES])
    try:
        count = unpacker.read_array_header()
        head = [unpacker.unpack(), unpacker.unpack()] if count == 4 else []
    except (msgpack.UnpackException, ValueError):
        return []
    return [*head, None, None] if head and head[0] == REQUEST else head
