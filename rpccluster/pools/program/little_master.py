"""The program's side of its pool's own master: starts that process, hears of task processes, has some killed.

That master is a fresh interpreter with the program's ``sys.path``, never a fork of the program. It ends, with all task
processes, when the program's end of the channel is closed. Runs in the program.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from typing import Any

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import KillTask

__all__ = ["LittleMaster"]

_ENDS_WITHIN = 10.0  # seconds, with its processes; it kills them all

#: The program may have found this package by a path that only it knows.
_PROGRAM = """\
import sys
sys.path[:] = {path!r}
from rpccluster.assembly.little_master import main
sys.exit(main(["{descriptor}"]))
"""


class LittleMaster:
    """One such process, with the channel to it."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Start it. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = _absolute(sys.path)
        try:
            ours.send(json.dumps({**options, "path": path}).encode())
            self.channel = Channel(ours)
            program = _PROGRAM.format(path=path, descriptor=theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-c", program], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Its pid."""
        return self._process.pid

    def kill_task(self, serial: int, number: int) -> None:
        """Have the process ``serial`` killed if it still runs the task ``number``."""
        self.channel.send(KillTask(serial, number))

    def end(self) -> None:
        """Have it end, with its processes, and wait for that."""
        self.channel.close()
        try:
            self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def leave(self) -> None:
        """Let go of it in a forked copy of the program, which must not keep it alive."""
        with contextlib.suppress(OSError):
            self.channel.close()


def _absolute(path: list[str]) -> list[str]:
    """Return ``path`` as it means the same in another process: the empty name is the current folder."""
    return [os.path.abspath(entry) for entry in path]
