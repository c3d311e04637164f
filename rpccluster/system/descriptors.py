"""Descriptors: their limit, which stay open, the process at the other end, and writes without SIGPIPE."""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Container, Iterable, Iterator
from os import close  # imported before gevent patches it: gevent's own closes later

__all__ = [
    "MSG_NOSIGNAL",
    "READABLE",
    "WRITABLE",
    "Reserve",
    "check_listening",
    "close_all_but",
    "end_for_all",
    "keep_alive",
    "let_exec_close_all_but",
    "make_room_for",
    "occupy_standard_descriptors",
    "peer_process",
    "room_beside",
    "self_pipe",
    "without_sigpipe",
    "write",
]

_KEEPALIVE_PROBES = 4
#: The events of a libev watcher: EV_READ and EV_WRITE of ev.h.
READABLE, WRITABLE = 1, 2

#: The flag of every send: a service, or a client's program, may have set SIGPIPE to its default.
MSG_NOSIGNAL = getattr(socket, "MSG_NOSIGNAL", 0x4000)  # PyPy 3.9 lacks the name

_NO_ROOM = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_SO_PEERCRED = getattr(socket, "SO_PEERCRED", 17)  # socket.h; PyPy does not name it
_FEW_DESCRIPTORS = 300  # as many as a small process with connections in transit works with
_SPARE_DESCRIPTORS = 256  # beside connections: files of the service, listeners, the loop


def close_all_but(kept: Container[int], *, keeps_inherited: bool = True) -> None:
    """Close every descriptor except ``kept``, and except those inherited through an exec if ``keeps_inherited``."""
    for descriptor in _open_descriptors():
        if descriptor not in kept:
            with contextlib.suppress(OSError):
                if not (keeps_inherited and os.get_inheritable(descriptor)):
                    os.close(descriptor)


def let_exec_close_all_but(kept: Container[int]) -> None:
    """Have an exec close every descriptor except ``kept``, also those that this process has inherited."""
    for descriptor in _open_descriptors():
        if descriptor not in kept:
            with contextlib.suppress(OSError):
                os.set_inheritable(descriptor, False)


def _open_descriptors() -> Iterable[int]:
    """Return at least all open descriptors. Source: proc(5), fd."""
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def make_room_for(connections: int) -> int:
    """Raise the soft RLIMIT_NOFILE for ``connections`` and the rest of a process, at most to the hard limit.

    Returns the soft limit.
    """
    wanted = connections + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        return target
    return soft


def room_beside(descriptors: int) -> int:
    """Return how many this process may hold beside ``descriptors``; half of all if it may hold few, 0 if very few."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(0, soft - min(descriptors, max(soft // 2, _FEW_DESCRIPTORS)))


class Reserve:
    """Open descriptors without a use, which make room for others when the process may open no more."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: list[int] = []
        self._fill()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Free the reserve during the ``with`` block, then fill it again as far as possible."""
        self.close()
        try:
            yield
        finally:
            self._fill()

    def _fill(self) -> None:
        with contextlib.suppress(OSError):
            self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            for _ in range(self._size - 1):
                self._held.append(os.dup(self._held[0]))

    def close(self) -> None:
        """Close all descriptors of the reserve."""
        held, self._held = self._held, []
        for descriptor in held:
            close(descriptor)


def occupy_standard_descriptors() -> None:
    """Open /dev/null where stdin, stdout or stderr is closed.

    Otherwise a socket or the pidfile would get that number; prints would go into it, and a redirection would close it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one


def write(descriptor: int, data: bytes) -> int:
    """Call write(2). A pipe without a reader raises BrokenPipeError, whatever SIGPIPE is set to."""
    with without_sigpipe():
        return os.write(descriptor, data)


def self_pipe() -> tuple[int, int]:
    """Make a way to wake a loop of this process. Returns the ends to read and to write, which may be one descriptor.

    Eight bytes of native order, not all zero, may be written at once. Neither end blocks. Raises OSError.
    """
    if hasattr(os, "eventfd"):
        end = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return end, end
    to_read, to_write = os.pipe()
    os.set_blocking(to_read, False)
    os.set_blocking(to_write, False)
    return to_read, to_write


@contextlib.contextmanager
def without_sigpipe() -> Iterator[None]:
    """Let a write to a pipe without a reader raise BrokenPipeError and send no signal.

    The kernel sends SIGPIPE to the writing thread, so this blocks it in that thread and takes it back.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGPIPE,))
    try:
        yield
    except BrokenPipeError:
        if signal.SIGPIPE not in blocked and hasattr(signal, "sigtimedwait"):  # PyPy has none
            signal.sigtimedwait((signal.SIGPIPE,), 0)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def peer_process(sock: _socket.socket) -> tuple[int, int]:
    """Return pid and uid of the process that connected a Unix socket, at that time. Source: unix(7), SO_PEERCRED."""
    pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, struct.calcsize("iII")))
    return pid, uid


def end_for_all(sock: _socket.socket) -> None:
    """Tell the peer of ``sock`` that its connection ends, although another process may have a copy."""
    with contextlib.suppress(OSError):
        sock.shutdown(_socket.SHUT_RDWR)


def keep_alive(sock: _socket.socket, idle_seconds: int) -> None:
    """Have the kernel ask the peer of a TCP socket for a sign of life after so much silence; 0: not at all (tcp(7)).

    What a listener accepts inherits this. A socket of another family stays as it is. Raises OSError.
    """
    if sock.family not in (_socket.AF_INET, _socket.AF_INET6):
        return
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1 if idle_seconds else 0)
    if idle_seconds:
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE, idle_seconds)
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, max(1, idle_seconds // _KEEPALIVE_PROBES))
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)


def check_listening(path: str) -> None:
    """Return if a process listens at the Unix socket ``path``, also one that is stopped or busy.

    Raises OSError if not; ConnectionRefusedError if the socket is stale.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # decides at once: a full backlog is EAGAIN, unix(7)
        with contextlib.suppress(BlockingIOError):
            probe.connect(path)
