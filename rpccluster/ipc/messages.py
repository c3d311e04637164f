"""What the processes of a cluster say to each other, and its form on a channel. Pure; every process.

A message is a NamedTuple; on the wire a MessagePack array of its place in `_KINDS` and its fields. The table
is only ever added to at its end: two versions speak with each other during an upgrade.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Union

import msgpack

from rpccluster.errors import UnknownMessage

__all__ = [
    "Accept",
    "Adopted",
    "BootFailed",
    "Closed",
    "DonorGone",
    "Give",
    "Go",
    "Message",
    "Ready",
    "Refused",
    "Release",
    "Released",
    "ReopenLogs",
    "Reply",
    "Retire",
    "Serving",
    "WantsToRetire",
    "decode",
    "encode",
]


class Ready(NamedTuple):
    """Worker to master: the service is loaded. ``methods`` are its names, numbered by their place."""

    methods: list[str]


class BootFailed(NamedTuple):
    """Worker to master, its last word: it could not boot. ``stage`` is "service" or "worker"."""

    stage: str
    text: str


class WantsToRetire(NamedTuple):
    """Worker to master: a reason of its own to be recycled, such as ``max_requests``."""

    reason: str


class Accept(NamedTuple):
    """Master to worker: accept connections from now on."""


class Retire(NamedTuple):
    """Master to worker: finish what you have within ``graceful_seconds``, then exit.

    ``whole_cluster`` says that everything stops: connections are not served any further.
    """

    graceful_seconds: float
    whole_cluster: bool


class ReopenLogs(NamedTuple):
    """Master to worker: the log files anew; the descriptors come with the message."""


class Release(NamedTuple):
    """Master to worker: give away up to ``number`` connections, idle ones first, and say `Released`."""

    number: int


class Released(NamedTuple):
    """Worker to master, after its ``number`` `Give`s: that was all for the last `Release`."""

    number: int


class Give(NamedTuple):
    """A connection that moves; its descriptor comes with the message. Whoever has received it owns it.

    ``cid`` is its number, never used for another. ``input`` is what was read and not begun, ``output`` what was
    not sent and may begin in the middle of a message. ``awaited`` names each call that still runs elsewhere:
    the serial of the worker that runs it, and its msgid.
    """

    cid: int
    peer: list[Any]
    is_eof: bool
    input: bytes
    output: bytes
    awaited: list[list[int]]


class Adopted(NamedTuple):
    """Owner to master, before it does anything with a connection: it is mine now."""

    cid: int


class Refused(NamedTuple):
    """Worker to master: a connection came without its descriptor, for this process may hold no more."""

    cid: int


class Reply(NamedTuple):
    """One whole reply to a call on a connection that has moved; goes to whoever owns it now."""

    cid: int
    serial: int
    data: bytes


class Closed(NamedTuple):
    """Owner to master: an adopted connection has ended."""

    cid: int


class DonorGone(NamedTuple):
    """Master to worker: a worker has ended, and with it the calls it ran for connections it gave away.

    With ``is_and_older`` so have all whose serials are lower.
    """

    serial: int
    is_and_older: bool


class Serving(NamedTuple):
    """New master to old, in an upgrade: my workers are ready."""

    pid: int


class Go(NamedTuple):
    """Old master to new, in an upgrade: I have stopped accepting; everything is yours."""


Message = Union[
    Ready,
    BootFailed,
    WantsToRetire,
    Accept,
    Retire,
    ReopenLogs,
    Serving,
    Go,
    Release,
    Released,
    Give,
    Adopted,
    Refused,
    Reply,
    Closed,
    DonorGone,
]

_KINDS: tuple[type, ...] = (
    Ready,
    BootFailed,
    WantsToRetire,
    Accept,
    Retire,
    ReopenLogs,
    Serving,
    Go,
    Release,
    Released,
    Give,
    Adopted,
    Refused,
    Reply,
    Closed,
    DonorGone,
)
_BY_NUMBER = dict(enumerate(_KINDS))
_NUMBERS = {kind: number for number, kind in _BY_NUMBER.items()}


def encode(message: Message) -> bytes:
    """The bytes of ``message``."""
    packed: bytes = msgpack.packb([_NUMBERS[type(message)], *message], unicode_errors="surrogateescape")
    return packed


def decode(data: bytes) -> Message:
    """The message in ``data``. Raises `UnknownMessage` if this version knows none such."""
    try:
        number, *fields = msgpack.unpackb(data, unicode_errors="surrogateescape")
        message: Message = _BY_NUMBER[number](*fields)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        reason = type(error).__name__  # its text may hold all that was decoded
        raise UnknownMessage(f"found a packet of {len(data)} bytes, expected a message ({reason})") from None
    return message
