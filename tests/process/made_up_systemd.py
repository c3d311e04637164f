"""A systemd of a hundred lines: it passes sockets, and hears notices, from the main process alone if so told.

Owns the sockets and the processes that it starts through `RunningCluster`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rpccluster.testing import RunningCluster, wait_until

_SCM_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", 2)
_SO_PASSCRED = getattr(socket, "SO_PASSCRED", 16)

#: Becomes the program, with the pid that its environment names: sd_listen_fds(3).
_LAUNCHER = """
import fcntl, os, sys
descriptors = [int(number) for number in sys.argv[1].split(",") if number]
high = [fcntl.fcntl(number, fcntl.F_DUPFD, 200) for number in descriptors]
os.closerange(3, 200)
for number, descriptor in enumerate(high, 3):
    os.dup2(descriptor, number)
os.closerange(200, 400)
if descriptors:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(descriptors)))
if "WATCHDOG_USEC" in os.environ:
    os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Notice(NamedTuple):
    """A state that systemd was told, and by whom."""

    pid: int
    fields: dict[str, str]


class MadeUpSystemd:
    """Holds the sockets of a unit, and hears its notices; ``main_pid`` is the process that systemd takes for it."""

    def __init__(self, folder: Path, *, notify: str = "path") -> None:
        self._folder = folder
        self._sockets: list[tuple[str, socket.socket]] = []
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.setsockopt(socket.SOL_SOCKET, _SO_PASSCRED, 1)
        address = f"\0rpccluster-{os.getpid()}-{id(self)}" if notify == "abstract" else str(folder / "notify")
        self._notices.bind(address)
        self._heard: queue.Queue[Notice] = queue.Queue()
        threading.Thread(target=self._hear, daemon=True).start()
        self.environment = {"NOTIFY_SOCKET": address.replace("\0", "@")}
        self.main_pid = 0

    def listen(self, name: str, path: str = "") -> str:
        """Listen, at a Unix ``path`` or at a TCP port; returns the address."""
        sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        sock.bind(path or ("127.0.0.1", 0))  # type: ignore[arg-type]
        sock.listen(128)
        self.passes(name, sock)
        return f"unix://{path}" if path else f"tcp://127.0.0.1:{sock.getsockname()[1]}"

    def passes(self, name: str, sock: socket.socket) -> None:
        """Pass ``sock`` to what is started from now on."""
        self._sockets.append((name, sock))
        self.environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in self._sockets)

    def launch(self, command: list[str], environment: Mapping[str, str], **rest: Any) -> subprocess.Popen[str]:
        """Start the main process of the unit."""
        numbers = [sock.fileno() for _, sock in self._sockets]
        process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, ",".join(map(str, numbers)), *command],
            env={**environment, **self.environment},
            pass_fds=numbers,
            text=True,
            stdin=subprocess.DEVNULL,
            **rest,
        )
        self.main_pid = process.pid
        return process

    def _hear(self) -> None:
        """Read all notices at once: the kernel keeps ten of them, and a master would wait for room."""
        with contextlib.suppress(OSError):
            while True:
                data, ancillary, _, _ = self._notices.recvmsg(4096, socket.CMSG_SPACE(12))
                if not data:
                    return
                ((_, kind, credentials),) = ancillary
                assert kind == _SCM_CREDENTIALS
                pid, _, _ = struct.unpack("iII", credentials)
                self._heard.put(Notice(pid, dict(line.split("=", 1) for line in data.decode().split("\n"))))

    def hear(self) -> Notice:
        """Wait for the next notice of anybody."""
        return self._heard.get(timeout=60.0)

    def hear_main(self, key: str) -> dict[str, str]:
        """Wait until the main process tells of ``key``, as with NotifyAccess=main; what it tells before is dropped."""
        while True:
            notice = self.hear()
            if notice.pid == self.main_pid:
                self.main_pid = int(notice.fields.get("MAINPID", self.main_pid))
                if key in notice.fields:
                    return notice.fields

    def close(self) -> None:
        """Close all sockets."""
        with contextlib.suppress(OSError):
            self._notices.shutdown(socket.SHUT_RD)  # ends the thread
        for sock in (self._notices, *(sock for _, sock in self._sockets)):
            sock.close()


class Unit(RunningCluster):
    """A cluster that systemd starts."""

    def __init__(self, systemd: MadeUpSystemd, folder: Path, options: Mapping[str, object]) -> None:
        super().__init__(folder, options)
        self.systemd = systemd

    def launch(self, *arguments: str, stderr: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start it with what systemd passes; the caller ends it."""
        return self.systemd.launch(
            self.command(*arguments),
            self._environment,
            cwd=self.folder,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )

    def wait_upgraded(self, old_pid: int) -> int:
        """Wait until another master than ``old_pid`` serves with all its workers; returns its pid."""
        wait_until(lambda: self.master_pid != old_pid, 60, "the new master answers")
        return int(self.wait_ready()["master"]["pid"])
