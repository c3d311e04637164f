"""Finds faults that no single value shows: options that contradict each other, or that this machine cannot meet.

Looks at files, accounts and CPUs, creates and changes nothing. The master calls it before its start and before a HUP.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Union

from rpccluster.address import TCPAddress, UnixAddress, unix_address
from rpccluster.config.accounts import gid_of, uid_of
from rpccluster.config.cpus import CPUChoice, allowed_cpus
from rpccluster.config.sections.cluster import Options
from rpccluster.errors import AddressError, StartError

__all__ = ["Complaint", "Machine", "complaints"]

IPAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


@dataclass(frozen=True)
class Machine:
    """Answers the checks' questions about this machine: the process's user, its CPUs, and the accounts."""

    euid: int = field(default_factory=os.geteuid)
    egid: int = field(default_factory=os.getegid)
    allowed_cpus: Callable[[], Collection[int]] = allowed_cpus
    uid_of: Callable[[str], int] = uid_of
    gid_of: Callable[[str], int] = gid_of


@dataclass(frozen=True)
class Complaint:
    """A problem, and the options that cause it; the fault names the place of the first one."""

    keys: tuple[str, ...]
    problem: str


@dataclass(frozen=True)
class _Path:
    key: str
    path: str
    is_socket: bool


def complaints(options: Options, machine: Machine, config_path: str | None = None) -> list[Complaint]:
    """Return every fault of ``options`` on ``machine``. ``config_path`` is the file that set them."""
    return [
        *_instance(options),
        *_listening(options),
        *_accounts(options, machine),
        *_cpus(options, machine),
        *_folders(options),
        *_shared_paths(options, config_path),
        *_unusable_paths(options),
    ]


def _instance(options: Options) -> Iterator[Complaint]:
    if options.single_instance and not options.pidfile:
        yield Complaint(("single_instance", "pidfile"), "found true without a pidfile, expected false or a pidfile")


def _listening(options: Options) -> Iterator[Complaint]:
    if not options.listen_addresses:
        yield Complaint(("bind", "unix_socket"), "found no address, expected one, or a unix_socket")
    for address in dict.fromkeys(options.bind):
        if options.bind.count(address) > 1:
            yield Complaint(("bind",), f"found {address} twice, expected it once")
    yield from _overlapping([address for address in dict.fromkeys(options.bind) if isinstance(address, TCPAddress)])


def _overlapping(binds: Collection[TCPAddress]) -> Iterator[Complaint]:
    """Find two addresses that need one port: the same host twice, or a host beside its family's wildcard."""
    hosts: dict[TCPAddress, IPAddress] = {}
    for bind in binds:
        with contextlib.suppress(ValueError):  # a host name may stand for any address: leave it to the kernel
            host = ipaddress.ip_address(bind.host)
            for other, its_host in hosts.items():
                overlap = host == its_host or (host.version == its_host.version and _is_any(host, its_host))
                if overlap and bind.port == other.port != 0:
                    yield Complaint(("bind",), f"found {bind} beside {other}, expected one of them: they overlap")
            hosts[bind] = host


def _is_any(*hosts: IPAddress) -> bool:
    return any(host.is_unspecified for host in hosts)


def _accounts(options: Options, machine: Machine) -> Iterator[Complaint]:
    yield from _account("user", options.user, machine.uid_of, machine, machine.euid)
    yield from _account("group", options.group, machine.gid_of, machine, machine.egid)


def _account(key: str, name: str, id_of: Callable[[str], int], machine: Machine, present: int) -> Iterator[Complaint]:
    try:
        if name and id_of(name) != present and machine.euid != 0:
            yield Complaint((key,), f"found {name!r}, expected nothing: only root can change its {key}")
    except StartError as error:
        yield Complaint((key,), error.message)


def _cpus(options: Options, machine: Machine) -> Iterator[Complaint]:
    if options.cpu_affinity.cpus:
        allowed = machine.allowed_cpus()
        outside = sorted(set(options.cpu_affinity.cpus).difference(allowed))
        if outside:
            found, expected = (CPUChoice("list", tuple(sorted(cpus))) for cpus in (outside, allowed))
            yield Complaint(("cpu_affinity",), f"found {found}, expected CPUs this process may run on: {expected}")


def _folders(options: Options) -> Iterator[Complaint]:
    folders = [("pythonpath", folder) for folder in options.pythonpath]
    for key, folder in [*folders, ("chdir", options.chdir)]:
        if folder and not os.path.isdir(folder):
            yield Complaint((key,), f"found {folder!r}, expected a folder that exists")


def _paths(options: Options) -> list[_Path]:
    access_log = "" if options.access_log in ("on", "off") else options.access_log
    binds = [address.path for address in dict.fromkeys(options.bind) if isinstance(address, UnixAddress)]
    paths = [
        _Path("pidfile", options.pidfile, False),
        _Path("control_socket", options.control_socket, True),
        *(_Path("bind", path, True) for path in binds),
        _Path("unix_socket", options.unix_socket, True),
        _Path("log_file", options.log_file, False),
        _Path("access_log", access_log, False),
    ]
    return [each for each in paths if each.path]


def _shared_paths(options: Options, config_path: str | None) -> Iterator[Complaint]:
    users = {os.path.realpath(config_path): "the configuration file"} if config_path else {}
    for each in _paths(options):
        if not each.path.startswith("/dev/"):  # anyone may share /dev/null
            other = users.setdefault(os.path.realpath(each.path), each.key)
            if other != each.key:
                yield Complaint((each.key, other), f"found {each.path!r}, which is {other} too, expected another path")


def _unusable_paths(options: Options) -> Iterator[Complaint]:
    for each in _paths(options):
        problem = _socket_problem(each.path) if each.is_socket else _file_problem(each.path)
        if problem:
            yield Complaint((each.key,), problem)


def _socket_problem(path: str) -> str:
    try:
        unix_address(path)
    except AddressError as error:
        return str(error)
    if os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        return f"found {path!r}, which is there and no socket, expected a free path"
    return _folder_problem(path)


def _file_problem(path: str) -> str:
    if os.path.isdir(path):
        return f"found the folder {path!r}, expected the path of a file"
    if os.path.exists(path):
        return "" if _may(path, os.W_OK) else f"found {path!r}, expected a file that this user may write"
    return _folder_problem(path)


def _folder_problem(path: str) -> str:
    """Say what keeps this process from creating ``path`` and the folders above it; empty if nothing does."""
    nearest = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest):
        return f"found {path!r}, expected a path in a folder: {nearest!r} is none"
    if not _may(nearest, os.W_OK | os.X_OK):
        return f"found {path!r}, expected a path in a folder that this user may write: {nearest!r} is none"
    return ""


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
