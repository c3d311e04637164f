"""What the master reads of a plugin's process beside its channel: its output, and a command's notices.

Each has a descriptor that the loop watches, and is read in bounded pieces, so that a plugin that writes without end
holds nobody up. Runs in the master.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Collection

from rpccluster.log.splitter import LineSplitter

__all__ = ["Notices", "OutputPipe"]

_PIECE_BYTES = 8192  # of output, in one turn of the loop
_LAST_BYTES = 1 << 20  # that are read of a process which has ended: another may write on
_NOTICE_BYTES = 4096
_MOST_NOTICES = 16  # in one turn of the loop
_SO_PASSCRED = getattr(socket, "SO_PASSCRED", 16)  # PyPy 7.3.11 lacks the names
_MSG_CMSG_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0x40000000)
_SCM_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", 2)
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7)


class OutputPipe:
    """The end of a pipe into which a process writes its output. ``is_closed`` turns true at end-of-file."""

    def __init__(self) -> None:
        """Make the pipe; ``far_end`` is the process's. Raises OSError."""
        self._descriptor, self.far_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._descriptor, False)
        self._splitter = LineSplitter()
        self.is_closed = False

    def fileno(self) -> int:
        """Return the descriptor to watch for reading."""
        return self._descriptor

    def let_go(self) -> None:
        """Close the process's end, after the fork."""
        if self.far_end >= 0:
            os.close(self.far_end)
            self.far_end = -1

    def read(self) -> list[str]:
        """Read one piece. Returns the lines that it completes."""
        try:
            data = os.read(self._descriptor, _PIECE_BYTES)
        except BlockingIOError:
            return []
        if data:
            return self._splitter.feed(data)
        self.is_closed = True
        return self._splitter.finish()

    def read_rest(self) -> list[str]:
        """Read what is left when the process has ended, and count a line without an end as one, too."""
        lines: list[str] = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(0 if self.is_closed else _LAST_BYTES // _PIECE_BYTES):
                data = os.read(self._descriptor, _PIECE_BYTES)
                if not data:
                    break
                lines += self._splitter.feed(data)
        return lines + self._splitter.finish()

    def close(self) -> None:
        """Close both ends."""
        self.let_go()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.is_closed = True


class Notices:
    """The datagram socket at which a command tells what sd_notify(3) says. Only ``uids`` may tell anything.

    Each process has its own, so it does not matter which of its descendants speaks.
    """

    is_closed = False

    def __init__(self, uids: Collection[int]) -> None:
        """Bind an abstract address, which the kernel chooses. Raises OSError."""
        self._uids = uids
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_PASSCRED, 1)
            self._socket.bind("")
        except OSError:
            self._socket.close()
            raise

    @property
    def address(self) -> str:
        """The address as NOTIFY_SOCKET has it."""
        name: bytes = self._socket.getsockname()
        return f"@{name[1:].decode()}"

    def fileno(self) -> int:
        """Return the descriptor to watch for reading."""
        return self._socket.fileno()

    def read(self) -> list[str]:
        """Return the notices that have come, such as ``READY=1``."""
        notices: list[str] = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST_NOTICES):
                notices += self._receive()
        return notices

    def _receive(self) -> list[str]:
        space = socket.CMSG_SPACE(_CREDENTIALS.size)
        data, ancillary, _, _ = self._socket.recvmsg(_NOTICE_BYTES, space, _MSG_CMSG_CLOEXEC)
        for level, kind, sent in ancillary:
            is_known = level == socket.SOL_SOCKET and kind == _SCM_CREDENTIALS
            if is_known and _CREDENTIALS.unpack(sent[: _CREDENTIALS.size])[1] in self._uids:
                return data.decode("utf-8", "replace").splitlines()
        return []

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
