"""The form of a message in one packet: as it is, or, if it is long, in a memory file that travels with it.

In the second case the packet itself holds the message without its bytes. So a process that only passes a long
message on, as the master does, never has to open the file. Owns no socket; used by both ends of a channel.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple, Union

from rpccluster.errors import UnknownMessage
from rpccluster.ipc.fdpass import IN_MEMORY_FILE, memory_file, read_memory_file
from rpccluster.ipc.messages import Message, decode, encode

__all__ = ["Packet", "Passing", "Unopened", "close_all", "message_of", "packed", "seen", "unopened"]


class Unopened(NamedTuple):
    """A long message as it is seen without opening its memory file, which is the last descriptor that came with it."""

    stub: Message  # without its bytes


Passing = Union[Message, Unopened]


class Packet(NamedTuple):
    """What one ``sendmsg`` takes."""

    data: bytes
    descriptors: list[int]


def packed(message: Passing, descriptors: Iterable[int], fits: Callable[[int], bool]) -> Packet:
    """``message`` and what travels with it; ``fits`` tells whether a packet may hold so many bytes.

    Of the packet's descriptors those beyond ``descriptors`` were made for it. Raises OSError if a memory file is needed
    and cannot be had.
    """
    if isinstance(message, Unopened):
        return Packet(_head(message.stub, fits), [*descriptors])
    data = encode(message)
    if fits(len(data)):
        return Packet(data, [*descriptors])
    return Packet(_head(_stub(message), fits), [*descriptors, memory_file(data)])


def message_of(data: bytes, descriptors: list[int]) -> Message:
    """The message in a packet; its memory file is taken from ``descriptors``. A stub if that could not be received.

    Raises `UnknownMessage`; then the descriptors are closed, and it tells what was refused with them.
    """
    with _closed_if_unknown(descriptors):
        if data.startswith(IN_MEMORY_FILE):
            data = read_memory_file(descriptors.pop()) if descriptors else data[len(IN_MEMORY_FILE) :]
        return decode(data)


def unopened(data: bytes, descriptors: list[int]) -> Passing:
    """The same, but a memory file stays in ``descriptors``, unread unless the packet holds nothing else."""
    if not data.startswith(IN_MEMORY_FILE) or not descriptors:
        return message_of(data, descriptors)
    with _closed_if_unknown(descriptors):
        head = data[len(IN_MEMORY_FILE) :]
        return Unopened(decode(head) if head else _stub(decode(read_memory_file(descriptors[-1], closes=False))))


def seen(message: Passing) -> Message:
    """The message, as far as it can be seen without opening its memory file."""
    return message.stub if isinstance(message, Unopened) else message


def close_all(descriptors: Iterable[int]) -> None:
    """Close them."""
    for descriptor in descriptors:
        os.close(descriptor)


def _head(stub: Message, fits: Callable[[int], bool]) -> bytes:
    """The packet's own bytes: the stub, unless its lists are too long even for that."""
    head = IN_MEMORY_FILE + encode(stub)
    return head if fits(len(head)) else IN_MEMORY_FILE


def _stub(message: Any) -> Message:
    stub: Message = type(message)(*(b"" if isinstance(value, bytes) else value for value in message))
    return stub


@contextlib.contextmanager
def _closed_if_unknown(descriptors: list[int]) -> Iterator[None]:
    try:
        yield
    except UnknownMessage as error:
        if not descriptors:
            error.refused = None
        close_all(descriptors)
        raise
