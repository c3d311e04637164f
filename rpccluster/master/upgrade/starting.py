"""Starts a new master: a fork that execs the command line with which this program was started.

Runs in the old master, and in its fork that becomes the new one. `inherited` lists what passes between them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.log import logger
from rpccluster.master.signals import reset_for_exec
from rpccluster.master.upgrade.inherited import Thing, leave
from rpccluster.system import System
from rpccluster.system.processes import launch

__all__ = ["CommandLine", "Started", "start"]

UPGRADE_SECONDS = 300.0  # a new master that is not serving by then is given up


@dataclass
class Started:
    """A started new master."""

    pid: int
    channel: Channel
    give_up_at: float  # monotonic seconds


@dataclass(frozen=True)
class CommandLine:
    """The command line of this program, with which a new master is started."""

    arguments: list[str]
    folder: str
    executable: str = sys.executable

    def exec(self) -> None:
        """Replace this process by that program. Raises OSError."""
        with contextlib.suppress(OSError):  # the folder has gone: only what needs it fails
            launch.enter(self.folder)
        command = launch.program(self.arguments, self.folder, self.executable)
        os.execv(command[0], command)

    def become(self, inherited: Sequence[Thing]) -> None:
        """Become a new master, in a forked child; the exec closes everything that is not ``inherited``."""
        try:
            reset_for_exec()
            leave(inherited)
            self.exec()
        except BaseException as error:
            logger.error("Cannot start the new master: %s", error)
        finally:
            os._exit(1)


def start(system: System, command: CommandLine, inherited: Sequence[Thing]) -> Started | None:
    """Start a new master that inherits ``inherited`` and a channel. Logs and returns None if that fails."""
    ends: list[Channel] = []
    try:
        ends += channel_pair()
        ours, theirs = ends
        channel = Thing("channel", descriptor=theirs.fileno())
        pid = system.spawn(partial(command.become, [*inherited, channel]))
    except OSError as error:
        logger.error("Cannot start a new master: %s", error)
        for end in ends:
            end.close()
        return None
    theirs.close()
    return Started(pid, ours, system.monotonic() + UPGRADE_SECONDS)
