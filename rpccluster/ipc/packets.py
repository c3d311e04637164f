"""Packs a message into one packet; a long message travels in a memory file beside it.

The packet then holds a stub, which is the message without its bytes, so that the master can pass a long message on
without opening the file. Owns no socket; both ends of a channel use it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, Union

from rpccluster.errors import UnknownMessage
from rpccluster.ipc.fdpass import IN_MEMORY_FILE, memory_file, read_memory_file
from rpccluster.ipc.messages import Message, decode, encode

__all__ = ["Packet", "Passing", "Unopened", "close_all", "message_of", "packed", "seen", "unopened"]


class Unopened(NamedTuple):
    """A long message whose memory file has not been opened. The file is the last descriptor that came with it."""

    stub: Message  # the message without its bytes


Passing = Union[Message, Unopened]


class Packet(NamedTuple):
    """The data and descriptors of one ``sendmsg``."""

    data: bytes
    descriptors: list[int]


def packed(message: Passing, descriptors: Iterable[int], fits: Callable[[int], bool]) -> Packet:
    """Pack ``message`` with ``descriptors``; ``fits`` says whether a packet may hold a number of bytes.

    A descriptor beyond ``descriptors`` is the memory file that this has made. Raises OSError if it cannot make one.
    """
    if isinstance(message, Unopened):
        return Packet(_head(message.stub, fits), [*descriptors])
    data = encode(message)
    if fits(len(data)):
        return Packet(data, [*descriptors])
    return Packet(_head(_stub(message), fits), [*descriptors, memory_file(data)])


def message_of(data: bytes, descriptors: list[int]) -> Message:
    """Decode the message of a packet, and take its memory file out of ``descriptors``.

    Returns the stub if the file could not be received. Raises `UnknownMessage` with the number to refuse, and closes
    the descriptors then.
    """
    try:
        if data.startswith(IN_MEMORY_FILE):
            data = read_memory_file(descriptors.pop()) if descriptors else data[len(IN_MEMORY_FILE) :]
        return decode(data)
    except UnknownMessage as error:
        raise _refused(error, descriptors) from None


def unopened(data: bytes, descriptors: list[int]) -> Passing:
    """Decode the stub of a packet; the memory file stays in ``descriptors``, and is read only if there is no stub."""
    if not data.startswith(IN_MEMORY_FILE) or not descriptors:
        return message_of(data, descriptors)
    try:
        head = data[len(IN_MEMORY_FILE) :]
        return Unopened(decode(head) if head else _stub(decode(read_memory_file(descriptors[-1], closes=False))))
    except UnknownMessage as error:
        raise _refused(error, descriptors) from None


def seen(message: Passing) -> Message:
    """Return the message, or the stub of an unopened one."""
    return message.stub if isinstance(message, Unopened) else message


def close_all(descriptors: Iterable[int]) -> None:
    """Close each of ``descriptors``."""
    for descriptor in descriptors:
        os.close(descriptor)


def _head(stub: Message, fits: Callable[[int], bool]) -> bytes:
    """Return the packet's own bytes: the stub, or nothing if its lists are too long even for that."""
    head = IN_MEMORY_FILE + encode(stub)
    return head if fits(len(head)) else IN_MEMORY_FILE


def _stub(message: Any) -> Message:
    stub: Message = type(message)(*(b"" if isinstance(value, bytes) else value for value in message))
    return stub


def _refused(error: UnknownMessage, descriptors: list[int]) -> UnknownMessage:
    """Close the descriptors of an unknown message. Returns the error; without them there is nothing to refuse."""
    if not descriptors:
        error.refused = None
    close_all(descriptors)
    return error
