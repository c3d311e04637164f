"""The start of a new master: a fork that execs the command line this program was started with.

Runs in the old master, and in the fork that becomes the new one. What is inherited is `inherited`'s.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.log import logger
from rpccluster.master.changes.inherited import Thing, leave
from rpccluster.master.signals import reset_for_exec
from rpccluster.system import System, launch

__all__ = ["CommandLine", "Started", "start"]

UPGRADE_SECONDS = 300.0  # a new master that is not serving by then is given up


@dataclass
class Started:
    """A new master that has been started."""

    pid: int
    channel: Channel
    give_up_at: float  # monotonic seconds


@dataclass(frozen=True)
class CommandLine:
    """How this program was started: what a new master is started with."""

    arguments: list[str]
    folder: str
    executable: str = sys.executable

    def exec(self) -> None:
        """Become that program. Raises OSError."""
        with contextlib.suppress(OSError):  # it is gone: what needs it will say so
            launch.enter(self.folder)
        command = launch.program(self.arguments, self.folder, self.executable)
        os.execv(command[0], command)


def start(system: System, command: CommandLine, inherited: Sequence[Thing]) -> Started | None:
    """Start a new master that inherits these, and a channel. None, and a log line, if cannot start a process."""
    ends: list[Channel] = []
    try:
        ends += channel_pair()
        pid = system.fork()
    except OSError as error:
        logger.error("Cannot start a new master: %s", error)
        for end in ends:
            end.close()
        return None
    ours, theirs = ends
    if pid == 0:
        _become_new_master(command, [*inherited, Thing("channel", descriptor=theirs.fileno())])
    theirs.close()
    return Started(pid, ours, system.monotonic() + UPGRADE_SECONDS)


def _become_new_master(command: CommandLine, inherited: Sequence[Thing]) -> None:
    """The forked child: all that is not inherited closes at the exec."""
    try:
        reset_for_exec()
        leave(inherited)
        command.exec()
    except BaseException as error:
        logger.error("Cannot start the new master: %s", error)
    finally:
        os._exit(1)
