"""Checks that any section may need: accounts, CPUs, folders and paths, as this machine has them.

Looks at files, accounts and CPUs, creates and changes nothing. Runs before the master starts and before a HUP.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations

from rpccluster.address import BindAddress, PassedAddress, TCPAddress, unix_address
from rpccluster.config.accounts import gid_of, uid_of
from rpccluster.config.cpus import CPUChoice, allowed_cpus
from rpccluster.config.origin import File
from rpccluster.errors import AddressError, StartError
from rpccluster.system.processes.identity import lowest_nice

__all__ = [
    "Complaint",
    "Machine",
    "UsedPath",
    "check_account",
    "check_addresses",
    "check_cpus",
    "check_folder",
    "check_niceness",
    "check_shared_paths",
    "check_usable_paths",
    "distrusted",
    "do_overlap",
]


@dataclass(frozen=True)
class Machine:
    """Answers the checks' questions about this machine: the process's user, its CPUs, and the accounts."""

    euid: int = field(default_factory=os.geteuid)
    egid: int = field(default_factory=os.getegid)
    allowed_cpus: Callable[[], Collection[int]] = allowed_cpus
    uid_of: Callable[[str], int] = uid_of
    gid_of: Callable[[str], int] = gid_of
    lowest_nice: Callable[[], int] = lowest_nice


@dataclass(frozen=True)
class Complaint:
    """A problem, and the options that cause it; the fault names the place of the first one.

    With ``if_given`` it is one only if the section itself has that key; ``[DEFAULT]`` may mean it for others.
    """

    keys: tuple[str, ...]
    problem: str
    if_given: bool = False


@dataclass(frozen=True)
class UsedPath:
    """A path that an option names, for a file or for a socket."""

    key: str
    path: str
    is_socket: bool


def check_account(
    key: str, name: str, id_of: Callable[[str], int], machine: Machine, present: int
) -> Iterator[Complaint]:
    """Complain of an account that does not exist, or that this process, whose own id is ``present``, cannot become."""
    try:
        if name and id_of(name) != present and machine.euid != 0:
            yield Complaint((key,), f"found {name!r}, expected nothing: only root can change its {key}")
    except StartError as error:
        yield Complaint((key,), error.message)


def check_cpus(key: str, choice: CPUChoice, machine: Machine) -> Iterator[Complaint]:
    """Complain of CPUs that this process may not run on."""
    if choice.cpus:
        allowed = machine.allowed_cpus()
        outside = sorted(set(choice.cpus).difference(allowed))
        if outside:
            found, expected = (CPUChoice("list", tuple(sorted(cpus))) for cpus in (outside, allowed))
            yield Complaint((key,), f"found {found}, expected CPUs this process may run on: {expected}")


def check_niceness(key: str, nice: int | None, machine: Machine) -> Iterator[Complaint]:
    """Complain of a niceness that this process may not set."""
    if nice is not None and nice < machine.lowest_nice():
        yield Complaint((key,), f"found {nice}, expected {machine.lowest_nice()} or more: only root may go below it")


def check_folder(key: str, folder: str) -> Iterator[Complaint]:
    """Complain of a folder that does not exist."""
    if folder and not os.path.isdir(folder):
        yield Complaint((key,), f"found {folder!r}, expected a folder that exists")


def check_addresses(key: str, addresses: Collection[BindAddress]) -> Iterator[Complaint]:
    """Complain of addresses that stand there twice, or that need one port."""
    different = dict.fromkeys(addresses)
    for address in different:
        if list(addresses).count(address) > 1:
            yield Complaint((key,), f"found {address} twice, expected it once")
    for other, address in combinations(different, 2):
        if do_overlap(address, other):
            yield Complaint((key,), f"found {address} beside {other}, expected one of them: they overlap")


def do_overlap(one: BindAddress, other: BindAddress) -> bool:
    """Return whether two addresses need one socket: one path, or one port of a host or of its family's wildcard."""
    if isinstance(one, PassedAddress) and isinstance(other, PassedAddress):
        return one == other or "" in (one.name, other.name)
    if not isinstance(one, TCPAddress) or not isinstance(other, TCPAddress):
        return one == other
    if one.port != other.port or one.port == 0:
        return False
    try:
        hosts = [ipaddress.ip_address(each.host) for each in (one, other)]
    except ValueError:  # a host name may stand for any address: leave it to the kernel
        return one == other
    is_one_family = len({host.version for host in hosts}) == 1
    return is_one_family and (hosts[0] == hosts[1] or any(host.is_unspecified for host in hosts))


def check_shared_paths(paths: Iterable[UsedPath], config_path: str | None) -> Iterator[Complaint]:
    """Complain of a path that two options name, or that is the configuration file's own."""
    users = {os.path.realpath(config_path): "the configuration file"} if config_path else {}
    for each in paths:
        if not each.path.startswith("/dev/"):  # anyone may share /dev/null
            other = users.setdefault(os.path.realpath(each.path), each.key)
            if other != each.key:
                yield Complaint((each.key, other), f"found {each.path!r}, which is {other} too, expected another path")


def check_usable_paths(paths: Iterable[UsedPath]) -> Iterator[Complaint]:
    """Complain of a path where this process cannot make the file or the socket."""
    for each in paths:
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


def distrusted(files: Iterable[File], machine: Machine) -> Iterator[tuple[File, str]]:
    """Yield each file that another account than root can change, with the problem, if this process is root.

    Only root may say what root runs. An access list that lets others write shows in the permissions of the group.
    """
    for file in files if machine.euid == 0 else ():
        real = os.path.realpath(file.path)
        for path in dict.fromkeys((real, os.path.dirname(real), file.folder)):
            with contextlib.suppress(OSError):  # the reader reports a file that is not there
                if writer := _other_writer(os.stat(path)):
                    yield (
                        file,
                        f"found {path!r}, which {writer} may write, expected one that only root may",
                    )


def _other_writer(status: os.stat_result) -> str:
    """Name an account that may write there and is neither root nor the one that runs this process; empty if none."""
    if status.st_uid not in (0, os.geteuid()):
        return f"user {status.st_uid}"
    if status.st_mode & stat.S_IWOTH:
        return "everybody"
    return f"group {status.st_gid}" if status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid()) else ""


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
