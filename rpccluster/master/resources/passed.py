"""The listening sockets that systemd has passed, as ``bind = fd://NAME`` names them. Runs in the master.

systemd holds each of them, too, and its callers may wait there while no master runs. So they stay open as long as the
master, also those that ``bind`` does not name, which a reload may name later; a new master gets all of them. Nothing
here unlinks the path of a Unix one, or changes its mode: both are systemd's.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator

from rpccluster.address import Address, BindAddress, PassedAddress, TCPAddress, UnixAddress
from rpccluster.errors import StartError
from rpccluster.log import logger
from rpccluster.system import Activation, PassedDescriptor

__all__ = ["actual_address", "hint_at", "open_passed", "passed_as", "warn_of_unnamed"]

_TCP = (socket.IPPROTO_TCP, 262)  # in.h: IPPROTO_MPTCP, by systemd.socket(5), SocketProtocol
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_SO_PROTOCOL = getattr(socket, "SO_PROTOCOL", 38)  # socket.h; PyPy does not name it


def passed_as(wanted: PassedAddress, activation: Activation) -> list[PassedDescriptor]:
    """Return the descriptors that ``wanted`` names. Raises `StartError` if there is none."""
    if not activation.descriptors:
        raise StartError(activation.reason)
    found = [each for each in activation.descriptors if wanted.name in ("", each.name)]
    if not found:
        names = ", ".join(dict.fromkeys(each.name for each in activation.descriptors))
        raise StartError(f"systemd has passed no socket of that name, but {names}")
    return found


def open_passed(passed: PassedDescriptor) -> socket.socket:
    """Return the socket of ``passed``. Raises `StartError` unless it listens at a TCP or Unix address."""
    name = f"{passed.name} (descriptor {passed.number})"
    try:
        sock = socket.socket(fileno=passed.number)
    except OSError as error:
        raise StartError(f"found {name}, expected a listening socket: {error.strerror}") from error
    found = _fault(sock)
    if found:
        sock.detach()
        raise StartError(f"found {name}, {found}, expected a TCP or Unix stream socket that listens (Accept=no)")
    return sock


def _fault(sock: socket.socket) -> str:
    """Say what kind of socket ``sock`` is, if it cannot be served."""
    if sock.family not in _FAMILIES:
        return f"a socket of family {int(sock.family)}"
    if sock.type != socket.SOCK_STREAM:
        return f"a socket of type {socket.SocketKind(sock.type).name}"
    protocol = sock.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL)
    if sock.family != socket.AF_UNIX and protocol not in _TCP:
        return f"a socket of protocol {protocol}"
    is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return "" if is_listening else "a socket that does not listen"


def actual_address(sock: socket.socket) -> Address:
    """Return the address that a listening socket is bound to; an abstract name begins with ``@``."""
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX:
        return TCPAddress(*name[:2])
    text = os.fsdecode(name)
    return UnixAddress("@" + text[1:] if text.startswith("\0") else text)


def hint_at(wanted: BindAddress, activation: Activation) -> str:
    """Return what to write instead of ``wanted``, if systemd has taken that address and passes it; else nothing."""
    for each in activation.descriptors:
        with contextlib.suppress(StartError), _borrowed(each) as sock:
            if actual_address(sock) == wanted:
                return f"; systemd passes it: write fd://{each.name}"
    return ""


@contextlib.contextmanager
def _borrowed(passed: PassedDescriptor) -> Iterator[socket.socket]:
    sock = open_passed(passed)
    try:
        yield sock
    finally:
        sock.detach()


def warn_of_unnamed(activation: Activation, bind: Iterable[BindAddress]) -> None:
    """Log each name whose sockets ``bind`` leaves out: callers that connect there wait for ever."""
    named = {wanted.name for wanted in bind if isinstance(wanted, PassedAddress)}
    for name in dict.fromkeys(each.name for each in activation.descriptors):
        if not named & {"", name}:
            logger.warning(
                "Nobody accepts at what systemd passes as %s: bind has neither fd:// nor fd://%s", name, name
            )
