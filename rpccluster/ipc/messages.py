"""What the processes of a cluster say to each other, and its form on a channel. Pure; every process.

A message is a NamedTuple; on the wire a MessagePack array of its kind's number and its fields. Two versions speak
with each other during an upgrade, so what is said may only grow:

- A kind takes the next free number and keeps it. A field comes at the end of its kind, with a default.
- A field at its default is not sent. Fields that the receiver does not know are ignored, those it misses have their
  defaults. A message without a field that its kind has had from the first is none, as if its kind were unknown.
- The first field of a kind that carries descriptors is the number by which a receiver that does not know the kind
  refuses it (`Refused`): what it refuses is still the sender's.
- What goes beyond that raises `PROTOCOL`, and `OLDEST_PROTOCOL` with it if an older receiver would get it wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import msgpack

from rpccluster.errors import UnknownMessage

__all__ = ["KINDS", "OLDEST_PROTOCOL", "PROTOCOL", "Message", "decode", "encode"]  # and each kind

PROTOCOL = 2  # what this version speaks with another master; 1 knows no `TookOver`, `Asked`, `DonorGone.cid`
OLDEST_PROTOCOL = 2  # a new master that speaks less would not understand what this version says

KINDS: dict[int, type[Any]] = {}  # by number
_NUMBERS: dict[type[Any], int] = {}

Kind = TypeVar("Kind", bound=type)


class Message(Protocol):
    """Any of the kinds below."""

    def __iter__(self) -> Iterator[Any]: ...

    @property
    def _fields(self) -> tuple[str, ...]: ...

    @property
    def _field_defaults(self) -> dict[str, Any]: ...


def _kind(number: int) -> Callable[[Kind], Kind]:
    """The decorated NamedTuple is the kind ``number``."""

    def register(kind: Kind) -> Kind:
        assert number not in KINDS, f"{KINDS[number].__name__} has the number {number}"
        KINDS[number] = kind
        _NUMBERS[kind] = number
        __all__.append(kind.__name__)
        return kind

    return register


# -- a worker and its master


@_kind(0)
class Ready(NamedTuple):
    """Worker to master: the service is loaded. ``methods`` are its names, numbered by their place."""

    methods: list[str]


@_kind(1)
class BootFailed(NamedTuple):
    """Worker to master, its last word: it could not boot. ``stage`` is "service" or "worker"."""

    stage: str
    text: str


@_kind(2)
class WantsToRetire(NamedTuple):
    """Worker to master: a reason of its own to be recycled, such as ``max_requests``."""

    reason: str


@_kind(3)
class Accept(NamedTuple):
    """Master to worker: accept connections from now on."""


@_kind(4)
class Retire(NamedTuple):
    """Master to worker: finish what you have within ``graceful_seconds``, then exit.

    ``whole_cluster`` says that everything stops: connections are not served any further. With ``stays`` some may still
    come that have to be answered: exit only after another order.
    """

    graceful_seconds: float
    whole_cluster: bool
    stays: bool = False


@_kind(5)
class ReopenLogs(NamedTuple):
    """Master to worker: the log files anew; the descriptors come with the message."""


@_kind(19)
class Listen(NamedTuple):
    """Master to worker: one listener more, whose path was made anew; its descriptor comes with the message."""


# -- connections that move


@_kind(8)
class Release(NamedTuple):
    """Master to worker: give away up to ``number`` connections, idle ones first, and say `Released`.

    None but the first may follow once those given have taken ``number_bytes`` of input and output along.
    """

    number: int
    number_bytes: int = 1 << 62


@_kind(9)
class Released(NamedTuple):
    """Worker to master, after its ``number`` `Give`s: that was all for the last `Release`."""

    number: int


@_kind(10)
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


@_kind(11)
class Adopted(NamedTuple):
    """Owner to master, before it does anything with a connection: it is mine now."""

    cid: int


@_kind(12)
class Refused(NamedTuple):
    """Worker to master: a connection came without its descriptor, for this process may hold no more."""

    cid: int


@_kind(13)
class Reply(NamedTuple):
    """One whole reply to a call on a connection that has moved; goes to whoever owns it now."""

    cid: int
    serial: int
    data: bytes


@_kind(14)
class Closed(NamedTuple):
    """Owner to master: an adopted connection has ended."""

    cid: int


@_kind(15)
class DonorGone(NamedTuple):
    """Master to worker, after the last reply of a worker that has ended: its other calls have ended with it.

    With ``is_and_older`` so have those of all workers whose serials are lower. Meant are the calls of the connection
    ``cid``; of any that the receiver has, if that is 0.
    """

    serial: int
    is_and_older: bool
    cid: int = 0


# -- two masters, in an upgrade


@_kind(6)
class Serving(NamedTuple):
    """New master to old, in an upgrade: my workers are ready. ``protocol`` is what it understands, see `PROTOCOL`."""

    pid: int
    protocol: int = 1


@_kind(7)
class Go(NamedTuple):
    """Old master to new, in an upgrade: take over; everything is yours as soon as you say `TookOver`."""


@_kind(16)
class TookOver(NamedTuple):
    """New master to old, in an upgrade: I have it all, and my workers accept."""


@_kind(17)
class Counted(NamedTuple):
    """Old master to new, after `TookOver` and before the old one ends: so much was counted since the last of these."""

    counts: dict[str, int]


@_kind(18)
class Asked(NamedTuple):
    """Old master to new, in an upgrade: this was asked of me since it began, do it too.

    ``what`` is a signal's name, such as "term", or "scale" to ``number`` workers.
    """

    what: str
    number: int = 0


# -- their form


def encode(message: Message) -> bytes:
    """The bytes of ``message``."""
    fields = list(message)
    for name in reversed(message._fields):
        if name not in message._field_defaults or fields[-1] != message._field_defaults[name]:
            break
        fields.pop()
    packed: bytes = msgpack.packb([_NUMBERS[type(message)], *fields], unicode_errors="surrogateescape")
    return packed


def decode(data: bytes, kinds: Mapping[int, type[Any]] = KINDS) -> Message:
    """The message in ``data``, one of ``kinds``. Raises `UnknownMessage` if it is none of them."""
    first: Any = None
    try:
        number, *fields = msgpack.unpackb(data, unicode_errors="surrogateescape")
        first = fields[0] if fields else None
        kind = kinds[number]
        message: Message = kind(*fields[: len(kind._fields)])
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        reason = type(error).__name__  # its text may hold all that was decoded
        text = f"found a packet of {len(data)} bytes, expected a message ({reason})"
        raise UnknownMessage(text, first if type(first) is int else None) from None
    return message
