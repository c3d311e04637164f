"""The words between systemd and this process: passed sockets, the watchdog's time, and the states that it is told.

Not systemd alone speaks them. Sources: sd_listen_fds(3), sd_watchdog_enabled(3), sd_notify(3). Any process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Activation", "PassedDescriptor", "notify_systemd"]

_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
_UNNAMED = "unknown"  # what sd_listen_fds_with_names(3) calls it
_NUMBER = re.compile(r"[0-9]{1,5}")
_MICROSECONDS = re.compile(r"[0-9]{1,18}")
_NO_ROOM = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class PassedDescriptor(NamedTuple):
    """A descriptor that systemd has passed. Several may have the same name."""

    name: str
    number: int


@dataclass(frozen=True)
class Activation:
    """What systemd has given this process at its start.

    ``reason`` says why there are no ``descriptors``. ``watchdog_seconds`` is the longest time between two signs of life
    that systemd wants; 0 means that it wants none.
    """

    descriptors: tuple[PassedDescriptor, ...] = ()
    reason: str = "systemd has passed no socket"
    watchdog_seconds: float = 0.0

    @classmethod
    def take(cls) -> Activation:
        """Take everything out of the environment, so that no other process finds it; no exec keeps the descriptors."""
        told = {name: os.environ.pop(name, "") for name in _VARIABLES}
        microseconds = told["WATCHDOG_USEC"]
        is_ours = told["WATCHDOG_PID"] in ("", str(os.getpid())) and "NOTIFY_SOCKET" in os.environ
        is_watched = is_ours and _MICROSECONDS.fullmatch(microseconds)
        return cls(*_passed(told), int(microseconds) / 1e6 if is_watched else 0.0)


_VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC")


def _passed(told: dict[str, str]) -> tuple[tuple[PassedDescriptor, ...], str]:
    count, pid = told["LISTEN_FDS"], told["LISTEN_PID"]
    if not count:
        return (), f"{Activation.reason} (LISTEN_FDS is not set)"
    if pid != str(os.getpid()):
        return (), f"found LISTEN_PID {pid!r}, expected {os.getpid()}, this process: a shell in between needs exec"
    if not _NUMBER.fullmatch(count) or not int(count):
        return (), f"found LISTEN_FDS {count!r}, expected the number of sockets that systemd passes"
    names = told["LISTEN_FDNAMES"].split(":")
    names += [""] * (int(count) - len(names))
    passed = [PassedDescriptor(name or _UNNAMED, number) for number, name in enumerate(names, _FIRST_DESCRIPTOR)]
    for each in passed[: int(count)]:
        with contextlib.suppress(OSError):  # it is not open: a fault only if somebody wants it
            os.set_inheritable(each.number, False)
    return tuple(passed[: int(count)]), ""


def notify_systemd(state: str) -> bool:
    """Send systemd ``state`` (sd_notify(3)), if it wants that. Returns False if its queue is full: try again."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return True
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
            notice.setblocking(False)
            notice.sendto(state.encode("utf-8", "backslashreplace"), address)
    except OSError as error:
        return error.errno not in _NO_ROOM
    return True
