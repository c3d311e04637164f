"""Handing everything to a new master, on both sides. Runs in the old master, and at the start of the new one.

Owns the start of the new master, and the environment variable that names what it inherits; what is said on the
channel between the two is `rpccluster.master.changes.succession`'s.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rpccluster.address import parse_address
from rpccluster.errors import StartError
from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.ipc.messages import PROTOCOL
from rpccluster.log import logger
from rpccluster.master.resources.listeners import Listener
from rpccluster.master.resources.pidfile import Pidfile
from rpccluster.master.signals import reset_for_exec
from rpccluster.system import System, launch

__all__ = ["VARIABLE", "CommandLine", "Inheritance", "Upgrade", "begin_upgrade"]

VARIABLE = "RPCCLUSTER_UPGRADE"
SERIALS_LEFT_TO_US = 10_000  # for workers that the old master may still start before it leaves
UPGRADE_SECONDS = 300.0  # a new master that is not serving by then is given up


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


@dataclass
class Upgrade:
    """An upgrade under way, as the old master sees it."""

    pid: int
    channel: Channel
    give_up_at: float  # monotonic seconds


@dataclass
class Inheritance:
    """What a new master was given by the old one."""

    channel: Channel
    generation: int
    first_serial: int
    protocol: int = 1
    listeners: list[Listener] = field(default_factory=list)
    control: Listener | None = None
    pidfile: Pidfile | None = None

    def sockets(self) -> list[Listener]:
        """The listeners, that of the control socket among them."""
        return [*self.listeners, *([self.control] if self.control else [])]

    @classmethod
    def from_environment(cls) -> Inheritance | None:
        """What the environment names, None if this is no upgrade. Raises `StartError` if it makes no sense."""
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            return _parse(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise StartError(f"{VARIABLE} is not what an old master would have set: {error!r}") from error


def _parse(told: dict[str, Any]) -> Inheritance:
    channel = Channel(socket.socket(fileno=told["channel"]))
    inheritance = Inheritance(channel, told["generation"], told["first_serial"], told.get("protocol", 1))
    marks = told.get("marks", {})  # an older master told none
    for text, descriptor in told["listeners"]:
        inheritance.listeners.append(_inherited(text, descriptor, marks))
    if told["control"]:
        inheritance.control = _inherited(told["control"][0], told["control"][1], marks)
    if told["pidfile"]:
        inheritance.pidfile = Pidfile(*told["pidfile"])
    for descriptor in (told["channel"], *([inheritance.pidfile.descriptor] if inheritance.pidfile else ())):
        os.set_inheritable(descriptor, False)
    return inheritance


def _inherited(text: str, descriptor: int, marks: dict[str, list[int]]) -> Listener:
    mark = marks.get(text)
    return Listener.inherited(parse_address(text), descriptor, (mark[0], mark[1]) if mark else None)


def begin_upgrade(
    system: System,
    command: CommandLine,
    generation: int,
    next_serial: int,
    listeners: Sequence[Listener],
    control: Listener | None,
    pidfile: Pidfile | None,
) -> Upgrade | None:
    """Start a new master that inherits all this. None, and a log line, if no process could be had."""
    try:
        ours, theirs = channel_pair()
    except OSError as error:
        logger.error("Cannot start a new master: %s", error)
        return None
    told = {
        "channel": theirs.fileno(),
        "protocol": PROTOCOL,
        "generation": generation,
        "first_serial": next_serial + SERIALS_LEFT_TO_US,
        "listeners": [(str(listener.wanted), listener.socket.fileno()) for listener in listeners],
        "control": (str(control.wanted), control.socket.fileno()) if control else None,
        "pidfile": (pidfile.path, pidfile.descriptor) if pidfile else None,
        "marks": {str(each.wanted): each.mark for each in (*listeners, *([control] if control else []))},
    }
    try:
        pid = system.fork()
    except OSError as error:
        logger.error("Cannot start a new master: %s", error)
        ours.close()
        theirs.close()
        return None
    if pid == 0:
        _become_new_master(command, told)
    theirs.close()
    return Upgrade(pid, ours, system.monotonic() + UPGRADE_SECONDS)


def _become_new_master(command: CommandLine, told: dict[str, Any]) -> None:
    """The forked child: everything but what is told of closes at the exec."""
    try:
        reset_for_exec()
        descriptors = [told["channel"], *(descriptor for _, descriptor in told["listeners"])]
        descriptors += [told[name][1] for name in ("control", "pidfile") if told[name]]
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        os.environ[VARIABLE] = json.dumps(told)
        command.exec()
    except BaseException as error:
        logger.error("Cannot start the new master: %s", error)
    finally:
        os._exit(1)
