"""The reply by which a server tells a client what it has read when it stops reading. Sans-I/O; worker and client.

A client sends the request `CLOSING` without params, once for each connection. The server keeps it until it stops
reading the connection, then replies with the msgids of the requests that it will still answer. It has read only these
and what it has answered, so any other request certainly did not run. A server that does not know `CLOSING` replies at
once that there is no such method; that says nothing about other requests.
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

_DUE = "due"  # a key of a map: a server that echoes any method would else seem to say that nothing is due
_HEAD_BYTES = 32  # an array header, a message type and a msgid take less, even in their longest forms


def closing_request(msgid: int) -> bytes:
    """Pack the request that the client sends."""
    return pack_request(msgid, CLOSING, [])


def closing_response(msgid: int, due: Iterable[int]) -> bytes:
    """Pack the reply: the server will answer the requests with msgids in ``due``, and no other."""
    return pack_response(msgid, None, {_DUE: list(due)})


def due_of(error: Any, result: Any) -> frozenset[int] | None:
    """Return the msgids that a reply to `CLOSING` lists; None if the reply says nothing."""
    due = result.get(_DUE) if error is None and type(result) is dict else None
    if type(due) is not list or any(type(msgid) is not int for msgid in due):
        return None
    return frozenset(due)


def msgids_of(messages: Iterable[Any]) -> list[int]:
    """Return the msgids of the requests among ``messages``, each decoded or still packed."""
    heads = (_head(message) if isinstance(message, bytearray) else message for message in messages)
    return [head[1] for head in heads if type(head) is list and len(head) == 4 and type(head[1]) is int]


def _head(packed: bytearray) -> list[Any]:
    """Decode the message type and the msgid of a packed request, and add None for the other parts."""
    unpacker = msgpack.Unpacker(raw=True)
    unpacker.feed(packed[:_HEAD_BYTES])
    try:
        count = unpacker.read_array_header()
        head = [unpacker.unpack(), unpacker.unpack()] if count == 4 else []
    except (msgpack.UnpackException, ValueError):
        return []
    return [*head, None, None] if head and head[0] == REQUEST else head
