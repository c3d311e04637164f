"""The sections ``[queues]`` and ``[queue:NAME]``: the process that keeps queues, and each queue. Any process.

Reads no file. The rest of `rpccluster.config`, etc/queues.ini and the documentation follow these tables.
`rpccluster.services.keeper` is the process.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from rpccluster.address import BindAddress, TCPAddress, UnixAddress
from rpccluster.config import values
from rpccluster.config.checks import Complaint, Machine, UsedPath, check_addresses, check_usable_paths
from rpccluster.config.sections.option import Section, live, option
from rpccluster.config.values import ValueType
from rpccluster.errors import AddressError

__all__ = ["QUEUE", "QUEUES", "QueueOptions", "QueuesOptions", "complaints", "is_loopback_only"]

SQLITE = "sqlite"
DURABLE = ("always", "second", "os")

_MANY = 2**31 - 1
_REDIS = re.compile(r"redis://(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(:[0-9]{1,5})?(/[0-9]{1,5})?")


def _read_engine(text: str) -> str:
    if text.lower() == SQLITE:
        return SQLITE
    if "@" in text:  # the fault must not show it
        raise AddressError("found an engine with a password or a user, expected redis://HOST:PORT/DB and password_file")
    if not _REDIS.fullmatch(text):
        raise ValueError(text)
    return text


ENGINE = ValueType("sqlite or redis://HOST:PORT/DB", _read_engine)


@dataclass(frozen=True)
class QueuesOptions:
    """The options of the process that keeps the queues, typed: sizes in bytes, durations in seconds."""

    engine: str = option(ENGINE, SQLITE, "what holds the items: sqlite, a file; or redis://HOST:PORT/DB")
    password_file: str = option(values.PATH, "", "file with the password of Redis, alone on its first line")
    path: str = option(
        values.PATH, "", "the file of the items; empty: queues.db beside the pidfile, or the configuration file"
    )
    durable: str = option(
        values.choice(*DURABLE),
        "always",
        "a put is answered when it is on disk (always), each second's puts are (second), or the system decides (os)",
    )
    bind: tuple[BindAddress, ...] = option(
        values.BIND,
        (),
        "addresses beside the Unix socket that lies beside the control socket: tcp://HOST:PORT, unix:///path",
    )
    create: bool = live(values.BOOLEAN, False, "make a queue that has no section when it is first used")
    session_grace: float = live(
        values.DURATION, 5.0, "seconds in which consumers come back after a restart of the keeper, and keep their items"
    )
    max_message_size: int = option(values.size(1024, _MANY), 16 << 20, "bytes of the largest message (K, M, G)")
    max_pending_calls: int = option(
        values.integer(1, _MANY), 32768, "unanswered calls of one connection, those that wait for an item included"
    )
    restart_delay: float = live(values.DURATION, 1.0, "the first pause after failed starts, doubled by each more")
    restart_delay_max: float = live(values.DURATION, 30.0, "the longest such pause in seconds; 0: none")

    @property
    def is_file(self) -> bool:
        """Whether the items stand in a file of this machine."""
        return self.engine == SQLITE


@dataclass(frozen=True)
class QueueOptions:
    """The options of one queue, typed: sizes in bytes, durations in seconds."""

    lease: float = live(values.DURATION, 60.0, "seconds that a consumer has for an item before another one gets it")
    max_attempts: int = live(values.integer(1, _MANY), 5, "deliveries of an item after which it is dead")
    max_size: int = live(values.integer(0), 0, "items that it may hold, until puts wait; 0: any number")
    max_bytes: int = live(values.SIZE, 0, "bytes that its items may have, until puts wait (K, M, G); 0: any number")
    expires: float = live(values.DURATION, 0.0, "seconds after which an item is dropped that nobody took; 0: never")
    dedup_window: float = live(
        values.DURATION, 300.0, "seconds in which a second put with the same dedup_id adds nothing"
    )


def complaints(options: QueuesOptions, machine: Machine, config_path: str | None = None) -> list[Complaint]:
    """Return every fault of ``options`` on ``machine``. ``config_path`` is not needed."""
    sockets = [
        UsedPath("bind", each.path, True) for each in dict.fromkeys(options.bind) if isinstance(each, UnixAddress)
    ]
    file = [UsedPath("path", options.path, False)] if options.path and options.is_file else []
    return [*_engine(options), *check_addresses("bind", options.bind), *check_usable_paths([*sockets, *file])]


def _engine(options: QueuesOptions) -> Iterator[Complaint]:
    if options.is_file and options.password_file:
        yield Complaint(("password_file", "engine"), "found a file beside the engine sqlite, which needs none", True)
    if not options.is_file and find_spec("redis") is None:
        problem = f"found {options.engine} where redis is missing, expected it: pip install 'rpccluster[redis]'"
        yield Complaint(("engine",), problem)
    if not options.is_file and options.path:
        yield Complaint(("path", "engine"), f"found a path beside the engine {options.engine}, expected none", True)


def _check_queue(options: QueueOptions, machine: Machine, config_path: str | None = None) -> list[Complaint]:
    found = []
    if options.lease <= 0:
        found.append(Complaint(("lease",), "found 0, expected more: a consumer would have no time for an item"))
    return found


QUEUES = Section("queues", QueuesOptions, complaints, makes_processes=True)
QUEUE = Section("queue", QueueOptions, _check_queue, is_named=True, makes_processes=True)


def is_loopback_only(addresses: Collection[BindAddress]) -> bool:
    """Return whether peers of this machine alone can reach ``addresses``."""
    hosts = [each.host for each in addresses if isinstance(each, TCPAddress)]
    return all(host == "localhost" or host.startswith("127.") or host == "::1" for host in hosts)
