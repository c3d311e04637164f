"""Opens the listening sockets, reports all faults at once, and hands the sockets on. Runs in the master.

Owns the sockets; workers only hold copies of the descriptors. `rpccluster.master.resources.unix_paths` owns Unix paths,
and `rpccluster.master.resources.passed` finds what systemd has passed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rpccluster.address import Address, BindAddress, PassedAddress, ProxiedAddress, TCPAddress, UnixAddress
from rpccluster.config.sections.cluster import Options
from rpccluster.control_path import make_folder
from rpccluster.errors import ConfigError, StartError
from rpccluster.log import logger
from rpccluster.master.resources.passed import actual_address, hint_at, open_passed, passed_as
from rpccluster.master.resources.unix_paths import Mark, bind_unix, mark_at, set_mode, unlink_ours
from rpccluster.system import Activation, PassedDescriptor, keep_alive
from rpccluster.system.processes.identity import Identity

__all__ = [
    "Listener",
    "apply_options",
    "bind_again",
    "close_listeners",
    "open_at",
    "open_control_listener",
    "open_listeners",
]

CONTROL_MODE = 0o600
_CONTROL_BACKLOG = 1024
_NOTHING_PASSED = Activation()
_WHAT_TO_DO = {
    errno.EADDRINUSE: "; another program listens there: stop it, or choose another address",
    errno.EADDRNOTAVAIL: "; this machine has no such address",
    errno.EACCES: "; ports below 1024 and the folders of others are for root",
}
_MAPPED = "::ffff:"  # an IPv4 address that is written as an IPv6 one


@dataclass(eq=False)
class Listener:
    """One listening socket. ``wanted`` is the configured address; ``actual`` has the port that the kernel chose."""

    wanted: BindAddress
    actual: BindAddress
    socket: socket.socket
    mark: Mark | None = None  # of the Unix path

    @classmethod
    def inherited(cls, wanted: Address, descriptor: int, mark: Mark | None = None) -> Listener:
        """Make a listener of a descriptor from an upgrade; an older master sends no ``mark``: the path's own counts."""
        if mark is None and isinstance(wanted, UnixAddress):
            mark = mark_at(wanted.path)
        is_blocking = os.get_blocking(descriptor)
        sock = socket.socket(fileno=descriptor)
        os.set_blocking(descriptor, is_blocking)  # PyPy lets it block, and with it the copies of all other processes
        os.set_inheritable(descriptor, False)
        return cls(wanted, _actual(wanted, sock), sock, mark)

    def is_there(self) -> bool:
        """Return whether the Unix path still leads to this socket; TCP addresses cannot be taken away."""
        return not isinstance(self.wanted, UnixAddress) or mark_at(self.wanted.path) == self.mark

    def close(self, *, is_last: bool) -> None:
        """Close this process's copy; with ``is_last``, also unlink the Unix path if it still leads to this socket.

        The descriptor of a passed socket stays open, since a later reload may name it again.
        """
        if isinstance(self.wanted, PassedAddress):
            self.socket.detach()
            return
        if is_last and isinstance(self.wanted, UnixAddress):
            unlink_ours(self.wanted.path, self.mark)
        self.socket.close()

    def become(self, other: Listener) -> None:
        """Go on with the socket of ``other``, which is bound to the same path; existing connections stay."""
        self.socket.close()
        self.socket, self.mark = other.socket, other.mark


def _plainly(key: str, problem: str) -> str:
    return problem


def open_listeners(
    options: Options,
    owner: Identity | None,
    present: list[Listener],
    fault: Callable[[str, str], str] = _plainly,
    activation: Activation = _NOTHING_PASSED,
) -> list[Listener]:
    """Return the listeners of the workers of ``options``, as `open_at` does."""
    return open_at(options.listen_addresses, options, owner, present, fault, activation)


def open_at(
    addresses: Sequence[BindAddress],
    options: Options,
    owner: Identity | None,
    present: list[Listener],
    fault: Callable[[str, str], str] = _plainly,
    activation: Activation = _NOTHING_PASSED,
) -> list[Listener]:
    """Return the listeners at ``addresses``: those among ``present``, and the others newly opened by ``options``.

    Raises `ConfigError` with a line for each address that cannot be had, and opens nothing then. ``fault`` writes such
    a line from key and problem.
    """
    ours = [each for each in present if not isinstance(each.wanted, PassedAddress)]
    known = {listener.actual: [listener] for listener in ours}  # the file may now spell out a port 0 or a host name
    known.update((listener.wanted, [listener]) for listener in ours)
    leaving = [each for each in ours if not {each.wanted, each.actual} & set(addresses)]
    opened: list[Listener] = []
    faults: list[str] = []
    for wanted in addresses:
        if wanted in known:
            continue
        known[wanted] = []
        try:
            if isinstance(wanted, PassedAddress):
                found = _each_passed(wanted, options, present, activation)
            else:
                found = iter([_open(wanted, options, owner, leaving)])
            for listener in found:
                known[wanted].append(listener)
                opened += [] if listener in present else [listener]
        except (OSError, UnicodeError, StartError) as error:  # UnicodeError: a host name that IDNA cannot encode
            reason = _reason(error, hint_at(wanted, activation))
            faults.append(fault(_key_of(wanted, options), f"cannot listen at {wanted}: {reason}"))
    if faults:
        close_listeners(opened, is_last=True)
        raise ConfigError(faults)
    return [listener for wanted in addresses for listener in known[wanted]]


def _each_passed(
    wanted: PassedAddress, options: Options, present: list[Listener], activation: Activation
) -> Iterator[Listener]:
    """Yield the listener of each socket that systemd has passed as ``wanted``. Raises `StartError` or OSError."""
    known = {each.socket.fileno(): each for each in present}
    for descriptor in passed_as(wanted, activation):
        yield known.get(descriptor.number) or _open_passed(descriptor, options)


def _open_passed(descriptor: PassedDescriptor, options: Options) -> Listener:
    sock = open_passed(descriptor)
    listener = Listener(PassedAddress(descriptor.name), actual_address(sock), sock)
    try:
        _apply(listener, options)
    except BaseException:
        listener.close(is_last=True)
        raise
    return listener


def _reason(error: Exception, hint: str = "") -> str:
    """Say why an address cannot be had, and what to do about it: ``hint``, or what is known for the error."""
    text = str(getattr(error, "strerror", None) or error)
    return text + (hint or _WHAT_TO_DO.get(getattr(error, "errno", None) or 0, ""))


def _key_of(wanted: BindAddress, options: Options) -> str:
    is_unix_socket = bool(options.unix_socket) and wanted == UnixAddress(options.unix_socket)
    return "unix_socket" if is_unix_socket and wanted not in options.bind else "bind"


def apply_options(listeners: list[Listener], options: Options) -> None:
    """Apply to open ``listeners`` the options that a reload may change; failures are logged."""
    for listener in listeners:
        try:
            _apply(listener, options)
        except OSError as error:
            logger.error("Cannot apply the new options to the listener at %s: %s", listener.actual, error)


def open_control_listener(path: str, *, is_private: bool = False) -> Listener:
    """Open a listener for the control socket that only this user may use. Raises `StartError`.

    With ``is_private``, its folder must belong to this user alone, and is made so.
    """
    try:
        if is_private:
            make_folder(os.path.dirname(path))
        sock, mark = bind_unix(path, CONTROL_MODE, None)
        try:
            _check_is_ours(path, CONTROL_MODE)
            sock.listen(_CONTROL_BACKLOG)  # nobody can connect before this
        except BaseException:
            unlink_ours(path, mark)
            sock.close()
            raise
    except OSError as error:
        raise StartError(f"cannot open the control socket {path}: {_reason(error)}") from error
    return Listener(UnixAddress(path), UnixAddress(path), sock, mark)


def bind_again(listener: Listener, options: Options, owner: Identity | None) -> None:
    """Bind a Unix listener again whose path somebody has removed. Raises OSError, and changes nothing then."""
    assert isinstance(listener.wanted, UnixAddress)
    listener.become(_open(listener.wanted, options, owner, []))


def close_listeners(listeners: list[Listener], *, is_last: bool) -> None:
    """Close this process's copies of ``listeners``, as `Listener.close` does."""
    for listener in listeners:
        listener.close(is_last=is_last)


def _open(wanted: Address, options: Options, owner: Identity | None, leaving: list[Listener]) -> Listener:
    mark = None
    if isinstance(wanted, UnixAddress):
        sock, mark = bind_unix(wanted.path, options.unix_socket_mode, owner)
    else:
        place = _resolve(wanted)
        for each in leaving:
            if each.actual == type(wanted)(*place.address[:2]):
                return each  # only its name has changed
        sock = _bind_tcp(place, options.backlog, leaving)
    listener = Listener(wanted, _actual(wanted, sock), sock, mark)
    try:
        _apply(listener, options)
    except BaseException:
        listener.close(is_last=True)
        raise
    return listener


def _apply(listener: Listener, options: Options) -> None:
    """Set the options that a reload may change; accepted sockets inherit the TCP options (tcp(7))."""
    sock = listener.socket
    sock.setblocking(False)  # a passed one may block, and be set so again by another process
    sock.listen(options.backlog)
    if sock.family == socket.AF_UNIX:
        if isinstance(listener.wanted, UnixAddress):
            set_mode(listener.wanted.path, listener.mark, options.unix_socket_mode)
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock, options.tcp_keepalive)


class _Place(NamedTuple):
    family: int
    address: Any  # as bind(2) takes it


def _resolve(wanted: TCPAddress) -> _Place:
    found = socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    return _Place(family, address)


def _bind_tcp(place: _Place, backlog: int, leaving: list[Listener]) -> socket.socket:
    """Bind and listen, even if a listener that is ``leaving`` still holds the port: for a while both hold it.

    So a reload can narrow 0.0.0.0 to 127.0.0.1, or widen it, and can be undone, and no caller is refused meanwhile.
    """
    host, port = place.address[:2]
    sock = socket.socket(place.family, socket.SOCK_STREAM)
    in_the_way = [each.socket for each in leaving if isinstance(each.actual, TCPAddress) and each.actual.port == port]
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.family == socket.AF_INET6 and not host.startswith(_MAPPED):  # an IPv4 listener may have its port
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with _sharing_ports([sock, *in_the_way] if in_the_way else []):
            sock.bind(place.address)
            sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _sharing_ports(socks: list[socket.socket]) -> Iterator[None]:
    """Let ``socks`` share one port during bind(2) and listen(2), and no longer, so that no other process joins them."""
    try:
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield
    finally:
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def _check_is_ours(path: str, mode: int) -> None:
    """Raise OSError unless the socket at ``path`` belongs to this process's user and has ``mode``.

    Some file systems ignore the owner or the mode.
    """
    found = os.lstat(path)
    if (found.st_uid, stat.S_IMODE(found.st_mode)) != (os.geteuid(), mode):
        told = f"found owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}"
        raise OSError(errno.EPERM, f"{told}, expected owner {os.geteuid()}, mode {mode:04o}")


def _actual(wanted: Address, sock: socket.socket) -> Address:
    if isinstance(wanted, UnixAddress):
        return wanted
    actual = actual_address(sock)
    if isinstance(wanted, ProxiedAddress) and isinstance(actual, TCPAddress):
        return ProxiedAddress(actual.host, actual.port)
    return actual
