"""Passes descriptors over Unix sockets: sendmsg and recvmsg with SCM_RIGHTS. Both ends of a channel use it.

Unlike socket.recv_fds it sets close-on-exec at once and refuses a truncated set. Source: unix(7), recvmsg(2).
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import tempfile
from collections.abc import Sequence

from rpccluster.errors import TruncatedDescriptors
from rpccluster.system import MSG_NOSIGNAL

__all__ = [
    "IN_MEMORY_FILE",
    "MAX_DESCRIPTORS",
    "memory_file",
    "read_memory_file",
    "receive_packet",
    "send_packet",
]

MAX_DESCRIPTORS = 253  # SCM_MAX_FD
IN_MEMORY_FILE = b"\xc1"  # begins no message; it says that the message is in the last descriptor's file
_MSG_CMSG_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0x40000000)  # PyPy 3.9 lacks the name
# plain numbers: the flags of `socket` are an enum, whose operators are slow
_SEND_FLAGS = int(socket.MSG_DONTWAIT | MSG_NOSIGNAL)
_RECEIVE_FLAGS = int(socket.MSG_DONTWAIT | _MSG_CMSG_CLOEXEC)
_TRUNCATED = int(socket.MSG_CTRUNC)
_DESCRIPTOR_BYTES = array.array("i").itemsize
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_DESCRIPTORS * _DESCRIPTOR_BYTES)


def send_packet(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one packet with ``descriptors``. Raises BlockingIOError if there is no room, OSError for other reasons."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([data], ancillary, _SEND_FLAGS)


def receive_packet(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive one packet of at most ``size`` bytes, and its descriptors; ``b""`` is end-of-file.

    Raises BlockingIOError if no packet has come, `TruncatedDescriptors` if descriptors were lost.
    """
    data, ancillary, flags, _ = sock.recvmsg(size, _ANCILLARY_BYTES, _RECEIVE_FLAGS)
    descriptors = _descriptors(ancillary)
    if flags & _TRUNCATED:
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        raise TruncatedDescriptors("this process may open no more descriptors, and has lost some", data)
    return data, descriptors


def memory_file(data: bytes = b"", name: str = "message") -> int:
    """Make a file in memory with ``data`` and return its descriptor; /proc shows ``name``.

    Raises OSError, and leaves no descriptor open then.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(f"rpccluster-{name}", os.MFD_CLOEXEC)
    else:  # an older PyPy
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_memory_file(descriptor: int, *, closes: bool = True) -> bytes:
    """Read a whole memory file; ``closes`` says whether to close the descriptor."""
    with open(descriptor, "rb", closefd=closes) as file:
        file.seek(0)
        return file.read()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % _DESCRIPTOR_BYTES])
    return list(found)
