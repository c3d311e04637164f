"""The messages between the processes of a cluster, and their form on a channel. Pure; every process.

A message is a NamedTuple. On the wire it is a MessagePack array of its type's number and its fields. Two versions
speak with each other during an upgrade, so messages may only grow:

- A new type takes the next free number and keeps it. A new field comes last in its type, with a default.
- The sender leaves out a field at its default. The receiver ignores fields that it does not know, and gives missing
  ones their defaults. If a field without a default is missing, the message is unknown, as if its type were.
- If a type carries descriptors, its first field is a number. A receiver that does not know the type refuses the message
  by that number (`Refused`); the sender keeps what was refused.
- Any other change raises `PROTOCOL`, and also `OLDEST_PROTOCOL` if an older receiver would get it wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

import msgpack

from rpccluster.errors import UnknownMessage
from rpccluster.protocol.codec import Encoded, encoded

__all__ = ["OLDEST_PROTOCOL", "PROTOCOL", "TYPES", "Message", "decode", "encode"]  # and each message type

PROTOCOL = 2  # the protocol that this version speaks with another master; 1 lacks `TookOver`, `Asked`, `DonorGone.cid`
OLDEST_PROTOCOL = 2  # a new master with an older protocol would not understand this version

TYPES: dict[int, type[Any]] = {}  # by number
_NUMBERS: dict[type[Any], int] = {}

Type = TypeVar("Type", bound=type)


class Message(Protocol):
    """Any of the message types below."""

    def __iter__(self) -> Iterator[Any]: ...

    @property
    def _fields(self) -> tuple[str, ...]: ...

    @property
    def _field_defaults(self) -> dict[str, Any]: ...


def _type(number: int) -> Callable[[Type], Type]:
    """Register the decorated NamedTuple as the message type ``number``."""

    def register(type_: Type) -> Type:
        assert number not in TYPES, f"{TYPES[number].__name__} has the number {number}"
        TYPES[number] = type_
        _NUMBERS[type_] = number
        __all__.append(type_.__name__)
        return type_

    return register


# -- a worker and its master


@_type(0)
class Ready(NamedTuple):
    """Worker to master: the service is loaded. ``methods`` are the names of its methods, numbered by their place.

    ``code_files`` are the files of the modules that the service has imported, if ``reload_code`` wants to know.
    ``engine`` is the one that runs its calls.
    """

    methods: list[str]
    code_files: Sequence[str] = ()
    engine: str = ""


@_type(1)
class BootFailed(NamedTuple):
    """Worker to master, as its last message: the worker could not boot. ``stage`` is "service" or "worker"."""

    stage: str
    text: str


@_type(2)
class WantsToRetire(NamedTuple):
    """Worker to master: recycle this worker. ``reason`` is its own, such as ``max_requests``."""

    reason: str


@_type(3)
class Accept(NamedTuple):
    """Master to worker: accept connections from now on."""


@_type(4)
class Retire(NamedTuple):
    """Master to worker: finish what you have within ``graceful_seconds``, then exit. A duration means the same in both.

    ``whole_cluster`` says that the cluster stops: close the connections, too. With ``stays`` connections may still
    come, whose calls must be answered: exit only after another `Retire`.
    """

    graceful_seconds: float
    whole_cluster: bool
    stays: bool = False


@_type(5)
class ReopenLogs(NamedTuple):
    """Master to worker: write to these log files; their descriptors come with the message.

    ``access_path`` is that of another access log than before, as in `rpccluster.log.LogFiles`; None if it is the same.
    """

    access_path: str | None = None


@_type(19)
class Listen(NamedTuple):
    """Master to worker: accept at a Unix path that was bound again; the listener comes with the message."""


# -- connections that move


@_type(8)
class Release(NamedTuple):
    """Master to worker: give away up to ``number`` connections, idle ones first, then send `Released`.

    Once the given connections have taken ``number_bytes`` of input and output along, give no further one.
    """

    number: int
    number_bytes: int = 1 << 62


@_type(9)
class Released(NamedTuple):
    """Worker to master: the last `Release` is done, with ``number`` messages `Give` before this one."""

    number: int


@_type(10)
class Give(NamedTuple):
    """Owner to master, and master to the next owner: a connection that moves. Its descriptor comes with the message.

    The receiver owns the connection. ``cid`` is its number, which no other connection gets. ``input`` was read, and its
    calls have not begun; ``output`` was not sent, and may begin in the middle of a message. ``awaited`` names each
    call that still runs elsewhere: the serial of the worker that runs it, and its msgid. ``kind`` is the kind of the
    processes that serve it; empty for the workers. ``identity`` are the names of its peer's identity, as far as it is
    known. The peer of one that ``is_entering`` has yet to pass the challenge. ``input`` has ``waited`` so many seconds.
    ``given_at`` is when its first owner gave it away, in monotonic seconds; 0 if that is not known. Until
    ``unread_until``, in monotonic seconds, it is not read, and what was read does not begin.
    """

    cid: int
    peer: list[Any]
    is_eof: bool
    input: bytes
    output: bytes
    awaited: list[list[int]]
    kind: str = ""
    identity: list[str] = []  # noqa: RUF012 - nobody changes it
    is_entering: bool = False
    waited: float = 0.0
    given_at: float = 0.0
    unread_until: float = 0.0


@_type(11)
class Adopted(NamedTuple):
    """Receiver to master, before it does anything with a connection: the receiver owns it now."""

    cid: int


@_type(12)
class Refused(NamedTuple):
    """Receiver to sender: the connection came without its descriptor; the sender still owns it."""

    cid: int


@_type(13)
class Reply(NamedTuple):
    """One whole reply to a call that ran while its connection moved. The master passes it on to the present owner."""

    cid: int
    serial: int
    data: bytes


@_type(33)
class CancelCall(NamedTuple):
    """Owner to master, and master to the worker ``serial``: the calls ``msgid`` of the connection ``cid`` are to end.

    With ``is_gone`` their caller has gone: that ends only calls of methods with ``cancel_on_disconnect``.
    """

    cid: int
    serial: int
    msgid: int
    is_gone: bool = False


@_type(14)
class Closed(NamedTuple):
    """Owner to master: a connection that had moved to this owner has ended."""

    cid: int


@_type(15)
class DonorGone(NamedTuple):
    """Master to worker, after the last `Reply` of a worker that has ended: its other calls have ended with it.

    With ``is_and_older`` the calls of all workers with lower serials have ended, too. It concerns the calls of the
    connection ``cid``, or of all connections of the receiver if that is 0.
    """

    serial: int
    is_and_older: bool
    cid: int = 0


@_type(70)
class Keep(NamedTuple):
    """Owner to master, on the channel of copies: keep these sockets, which come with the message, in case that I die.

    Of each connection it tells the number, the peer's address as in `Give`, and the names of its identity. ``cid`` is
    the number of the first. Nothing was read of them.
    """

    cid: int
    connections: list[list[Any]]


@_type(71)
class Noted(NamedTuple):
    """Owner to master: my ledger has the connection ``cid``, which I have adopted, if it ``is_covered``.

    On the channel of copies: it does not have this one, which I have accepted. ``why`` is of `rpccluster.ledger.why`.
    """

    cid: int
    is_covered: bool = True
    why: str = ""


@_type(72)
class Drop(NamedTuple):
    """Owner to master, on the channel of copies: close those of these connections, which have ended."""

    cids: list[int]


@_type(73)
class Collect(NamedTuple):
    """Owner to master: read the channel of copies, which wakes nobody."""


# -- two masters, in an upgrade


@_type(6)
class Serving(NamedTuple):
    """New master to old, in an upgrade: my workers are ready. ``protocol`` is the new master's `PROTOCOL`."""

    pid: int
    protocol: int = 1


@_type(7)
class Go(NamedTuple):
    """Old master to new, in an upgrade: take over; everything is yours as soon as you send `TookOver`.

    ``groups`` are the names of my plugins' groups.
    """

    groups: Sequence[str] = ()


@_type(16)
class TookOver(NamedTuple):
    """New master to old, in an upgrade: I own everything, and my workers accept.

    Keep the processes of the ``groups`` that you have, until I send `StopGroup` for each; if there are any, I shall
    send `GroupsReplaced`.
    """

    groups: Sequence[str] = ()


@_type(17)
class Counted(NamedTuple):
    """Old master to new, after `TookOver`: the ``counts`` of its workers since the last message of this type."""

    counts: dict[str, int]


@_type(18)
class Asked(NamedTuple):
    """Old master to new, in an upgrade: obey this, too; I got it after the upgrade had begun.

    ``what`` is a signal's name, such as "term", or "scale" to ``number`` workers. New master to old: I was asked to
    stop, or to leave to a third master, so my end is no crash.
    """

    what: str
    number: int = 0


@_type(20)
class StopGroup(NamedTuple):
    """New master to old, after `TookOver`: stop the processes of the group ``name``, then send `GroupStopped`."""

    name: str


@_type(21)
class GroupStopped(NamedTuple):
    """Old master to new: nothing of the group ``name`` is left here, asked for or not."""

    name: str


@_type(22)
class GroupsReplaced(NamedTuple):
    """New master to old: each group has had its turn. ``failures`` are those that are not up, with the reason."""

    failures: Sequence[Sequence[str]] = ()


# -- a change of the settings


@_type(23)
class Propose(NamedTuple):
    """Master to child: vote on these settings, as the version ``version``. ``attempt`` counts the votes.

    ``texts`` are all values by their keys, ``places`` the places where they stand.
    """

    attempt: int
    version: int
    texts: dict[str, str]
    places: dict[str, str]


@_type(24)
class Vote(NamedTuple):
    """Child to master: the vote of that ``attempt``. ``refusal`` is the reason against it; empty for a yes."""

    attempt: int
    refusal: str = ""


@_type(25)
class Switch(NamedTuple):
    """Master to child: this version is in force, for calls that begin from now on.

    ``texts`` and ``places`` are those of the settings; ``options`` are those of ``[cluster]`` that change at once.
    """

    version: int
    texts: dict[str, str]
    places: dict[str, str]
    options: Mapping[str, Any] = MappingProxyType({})


@_type(26)
class Switched(NamedTuple):
    """Child to master: the settings of that ``version`` are in force here."""

    version: int


# -- processes of a pool, and their dispatcher


@_type(27)
class TaskProcess(NamedTuple):
    """Master to dispatcher: a process of the pool ``pool`` takes tasks from you now.

    With the message come its socket (`rpccluster.tasks.wire`), and the read end and the write end of its tickets' pipe.
    No other process gets the same ``serial``. ``row`` is its row of the scoreboard.
    """

    serial: int
    pool: str
    slot: int
    pid: int
    row: int = 0


@_type(28)
class TaskProcessGone(NamedTuple):
    """Master to dispatcher: that process has ended, or begins nothing more and was sent KILL for its task.

    ``number`` is that of the task which it had begun and not ended, 0 for none: `rpccluster.tasks.wire.Run.number`.
    That began at ``started_at``, in seconds of the epoch. ``cause`` is "timed_out", "out_of_memory" or "cancelled" if
    the master has killed it for that, "recycled" if it was wanted to end, else "lost". ``signal`` has ended it; 0 if it
    ended with the exit status ``status``. ``begun`` is the number of the task that it has begun last, ended or not.
    """

    serial: int
    pool: str
    slot: int
    pid: int
    number: int
    cause: str
    signal: int = 0
    status: int = 0
    started_at: float = 0.0
    begun: int = 0


@_type(29)
class KillTask(NamedTuple):
    """Dispatcher to master: kill the process ``serial`` if it still runs the task ``number``, which is cancelled.

    With the number 0 kill it in any case: its stream cannot be read any more.
    """

    serial: int
    number: int


# -- questions to a child


@_type(31)
class Inquire(NamedTuple):
    """Master to child: somebody asks for ``what``, with ``params``. The answer has the same ``number``."""

    number: int
    what: str
    params: list[Any]


@_type(32)
class Findings(NamedTuple):
    """Child to master: the answer to `Inquire`, or the reason why there is none."""

    number: int
    value: Any
    error: str = ""


# -- the dispatcher and its master


@_type(30)
class Pools(NamedTuple):
    """Master to dispatcher: the pools that there are, by their names, each with options that concern the dispatcher.

    The first one says also that the dispatcher has been told of all processes that there are.
    """

    pools: dict[str, dict[str, Any]]


# -- the keeper and its master


@_type(40)
class Queues(NamedTuple):
    """Master to keeper: the options that change while it runs, of ``[queues]`` and of each queue by its name."""

    create: bool
    session_grace: float
    queues: dict[str, dict[str, Any]]


# -- the coordinator and its master


@_type(50)
class LeadOrder(NamedTuple):
    """Master to coordinator: give up the lead; the answer has the same ``number``."""

    number: int


@_type(51)
class LeadTold(NamedTuple):
    """Coordinator to master: who leads now, 0 and empty for nobody; the page of the lead says the rest.

    With a ``number`` other than 0 it is the answer to `LeadOrder`; ``error`` says why that has failed.
    """

    number: int
    error: str
    leader: str
    token: int


@_type(52)
class Present(NamedTuple):
    """Master to coordinator: the state in which the registry lists this cluster; empty: it lists it not, or no longer.

    ``started_at`` is when it started, in seconds of the epoch.
    """

    state: str
    started_at: float = 0.0


# -- the process of the page, and its master


@_type(60)
class AskMaster(NamedTuple):
    """Page's process to master: call a method of the control socket. The answer goes to the process ``serial``."""

    number: int
    serial: int
    method: str
    params: list[Any]


@_type(61)
class MasterTold(NamedTuple):
    """Master to page's process: the answer to `AskMaster` with this ``number``; ``error`` is empty if it went well."""

    number: int
    error: str
    value: Any


# -- their form


def encode(message: Message) -> bytes:
    """Return the bytes of ``message``; a field may be packed already (`Encoded`)."""
    fields = list(message)
    for name in reversed(message._fields):
        if name not in message._field_defaults or fields[-1] != message._field_defaults[name]:
            break
        fields.pop()
    if Encoded in map(type, fields):
        return encoded([_NUMBERS[type(message)], *fields])
    packed: bytes = msgpack.packb([_NUMBERS[type(message)], *fields], unicode_errors="surrogateescape")
    return packed


def decode(data: bytes, types: Mapping[int, type[Any]] = TYPES) -> Message:
    """Decode the message in ``data``. Raises `UnknownMessage` if it is none of ``types``."""
    first: Any = None
    try:
        number, *fields = msgpack.unpackb(data, unicode_errors="surrogateescape")
        first = fields[0] if fields else None
        type_ = types[number]
        message: Message = type_(*fields[: len(type_._fields)])
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        reason = type(error).__name__  # its text may hold all that was decoded
        text = f"found a packet of {len(data)} bytes, expected a message ({reason})"
        raise UnknownMessage(text, first if type(first) is int else None) from None
    return message
