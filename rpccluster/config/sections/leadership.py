"""The section ``[leadership]``: the store in which several clusters agree on who leads, and what a lead means here.

The password is read with the configuration, so that a reload reads it again. The rest of `rpccluster.config`,
etc/leadership.ini and the documentation follow this table. `rpccluster.services.coordinator` is the process.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

from rpccluster.address import Address, BindAddress, PassedAddress, TCPAddress, UnixAddress
from rpccluster.config import values
from rpccluster.config.checks import Complaint, Machine
from rpccluster.config.sections import cluster
from rpccluster.config.sections.option import Section, live, option
from rpccluster.config.values import PATH, ValueType
from rpccluster.leading.address import StoreAddress
from rpccluster.system.mounts import file_system_of, is_network_file_system

__all__ = ["LEADERSHIP", "LeadershipOptions", "PasswordFile", "complaints", "unreachable", "with_cluster"]

LEAST_SESSION = 2.0
SCOPES = ("methods", "cluster")
NOWHERE = StoreAddress("")  # what stands for an engine that was not given


def _write(engine: StoreAddress) -> str:
    return str(engine) if engine.path else ""


def _anchor(engine: StoreAddress, start_folder: str) -> StoreAddress:
    return replace(engine, path=PATH.anchor(engine.path, start_folder)) if engine.is_file else engine


ENGINE = ValueType("zookeeper://HOST:PORT,…/PATH or file:PATH", StoreAddress.parse, _write, _anchor)


@dataclass(frozen=True)
class PasswordFile:
    """The path of a file with a password, and what was found when it was read: the password, or a ``problem``."""

    path: str = ""
    password: str = field(default="", repr=False)
    problem: str = ""

    def __str__(self) -> str:
        return self.path

    def __bool__(self) -> bool:
        return bool(self.path)


def _read_password(named: PasswordFile, start_folder: str) -> PasswordFile:
    path = PATH.anchor(named.path, start_folder)
    if not path:
        return named
    try:
        mode = os.stat(path).st_mode
        with open(path, "rb") as file:
            password = file.readline().strip().decode()
    except OSError as error:
        problem = f"found {path!r}, expected a file that can be read: {error.strerror}"
        return PasswordFile(path, problem=problem)
    except UnicodeDecodeError as error:
        return PasswordFile(path, problem=f"found {path!r}, expected text in UTF-8: {error.reason}")
    if stat.S_IMODE(mode) & 0o077:
        problem = f"found {path!r}, which others may use (mode {mode & 0o777:04o}), expected mode 0600"
        return PasswordFile(path, problem=problem)
    problem = "" if password else f"found nothing in the first line of {path!r}, expected a password"
    return PasswordFile(path, password, problem)


PASSWORD_FILE = ValueType("a path on one line", lambda text: PasswordFile(PATH.read(text)), str, _read_password)


@dataclass(frozen=True)
class LeadershipOptions:
    """The options of the leadership, typed: durations in seconds. `with_cluster` fills in the default addresses."""

    engine: StoreAddress = option(  # noqa: RUF009 - it returns a field
        ENGINE, NOWHERE, "where clusters agree on who leads: zookeeper://HOST:PORT,…/PATH or file:PATH"
    )
    password_file: PasswordFile = option(  # noqa: RUF009 - it returns a field
        PASSWORD_FILE,
        PasswordFile(),
        "file with PASSWORD or USER:PASSWORD for ZooKeeper's digest scheme, which guards the nodes",
    )
    session_timeout: float = option(
        values.DURATION, 10.0, "seconds after which the lead of a cluster that is silent is free; 2 or more"
    )
    scope: str = option(
        values.choice(*SCOPES),
        "methods",
        "methods: all clusters serve, leader_only methods at the leader alone; cluster: only the leader listens",
    )
    advertise: tuple[Address, ...] = option(
        values.ADDRESSES, (), "addresses that clients reach this cluster at; empty: those of bind"
    )
    drain_delay: float = live(
        values.DURATION, 1.0, "seconds between leaving the registry and the end of a stop, in which clients turn away"
    )
    restart_delay: float = live(values.DURATION, 1.0, "the first pause after failed starts, doubled by each more")
    restart_delay_max: float = live(values.DURATION, 30.0, "the longest such pause in seconds; 0: none")


def with_cluster(options: LeadershipOptions, of_cluster: cluster.Options) -> LeadershipOptions:
    """Fill in the addresses of ``[cluster]`` if ``options`` advertise none; not those that nobody can reach."""
    if options.advertise:
        return options
    listen = of_cluster.listen_addresses
    reachable = [each for each in listen if isinstance(each, (TCPAddress, UnixAddress)) and not unreachable(each)]
    return replace(options, advertise=tuple(reachable))


def unreachable(address: BindAddress) -> str:
    """Say why nobody can call ``address`` as it stands there; empty if it can be called."""
    if isinstance(address, PassedAddress):
        return "systemd knows which addresses these are"
    if not isinstance(address, TCPAddress):
        return ""
    if address.port == 0:
        return "the kernel picks the port"
    try:
        return "it stands for all of this machine's" if ipaddress.ip_address(address.host).is_unspecified else ""
    except ValueError:
        return ""


def complaints(options: LeadershipOptions, machine: Machine, config_path: str | None = None) -> list[Complaint]:
    """Return every fault of ``options`` on ``machine``. ``config_path`` is not needed."""
    return [*_engine(options), *_password(options), *_times(options), *_advertise(options)]


def _engine(options: LeadershipOptions) -> Iterator[Complaint]:
    engine = options.engine
    if not engine.is_file and find_spec("kazoo") is None:
        problem = f"found {str(engine)!r}, expected a file, or kazoo: pip install 'rpccluster[zookeeper]'"
        yield Complaint(("engine",), problem)
    if not engine.is_file or not engine.path:
        return
    folder = os.path.dirname(engine.path)
    kind = file_system_of(engine.path)
    if os.path.isdir(engine.path):
        yield Complaint(("engine",), f"found the folder {engine.path!r}, expected the path of a file")
    elif not os.path.isdir(folder):
        yield Complaint(("engine",), f"found {str(engine)!r}, expected a path in a folder that exists: {folder!r}")
    elif is_network_file_system(kind):
        problem = f"found {str(engine)!r} on the file system {kind}, expected one of this machine, whose clock counts"
        yield Complaint(("engine",), problem)


def _password(options: LeadershipOptions) -> Iterator[Complaint]:
    if options.password_file and options.engine.is_file:
        yield Complaint(("password_file", "engine"), "found a file beside a file engine, which has no password")
    elif options.password_file.problem:
        yield Complaint(("password_file",), options.password_file.problem)


def _times(options: LeadershipOptions) -> Iterator[Complaint]:
    if options.session_timeout < LEAST_SESSION:
        problem = f"found {options.session_timeout:g}, expected {LEAST_SESSION:g} or more"
        yield Complaint(("session_timeout",), problem)


def _advertise(options: LeadershipOptions) -> Iterator[Complaint]:
    for address in options.advertise:
        reason = unreachable(address)
        if reason:
            yield Complaint(("advertise",), f"found {address}, expected an address that others can call: {reason}")


LEADERSHIP = Section("leadership", LeadershipOptions, complaints, required=("engine",))
