"""Connects to the first of a name's addresses that answers, by one deadline for all ("happy eyeballs", RFC 8305).

The addresses are tried in turn; the next one when one has failed, or has not answered for a while. The first
connection wins. For threads; `rpccluster.client.aio.dialing` is the counterpart on asyncio.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
from time import monotonic

from rpccluster.client.threads.lookup import Target, look_up
from rpccluster.client.threads.sockets import NEXT_SECONDS, adjust, all_failed

__all__ = ["dial"]


def dial(host: str, port: int, deadline_at: float) -> socket.socket:
    """Return a connected, non-blocking socket by ``deadline_at`` (monotonic). Raises OSError or UnicodeError."""
    with contextlib.closing(_Race(look_up(host, port, deadline_at))) as race:
        return race.run(deadline_at)


class _Race:
    """The attempts to connect, by descriptor."""

    def __init__(self, targets: list[Target]) -> None:
        self._left = targets
        self._running: dict[int, socket.socket] = {}
        self._errors: list[OSError] = []

    def run(self, deadline_at: float) -> socket.socket:
        """Return the first connected socket."""
        next_at = monotonic()
        while True:
            now = monotonic()
            if self._left and (now >= next_at or not self._running):
                if not self._start(*self._left.pop(0)):
                    continue  # the next one at once
                next_at = now + NEXT_SECONDS
            elif not self._running:
                raise all_failed(self._errors)
            winner = self._wait(min(deadline_at, next_at) if self._left else deadline_at)
            if winner is not None:
                return winner
            if monotonic() >= deadline_at:
                raise TimeoutError("timed out")

    def close(self) -> None:
        """Close the attempts that have not won."""
        for sock in self._running.values():
            sock.close()

    def _start(self, family: int, name: object) -> bool:
        """Begin an attempt. Returns False if it has failed at once."""
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # of a family that this host does not have
            self._errors.append(error)
            return False
        self._running[sock.fileno()] = sock
        sock.setblocking(False)
        try:
            sock.connect(name)  # type: ignore[arg-type]
        except BlockingIOError:
            pass
        except OSError as error:
            self._running.pop(sock.fileno()).close()
            self._errors.append(error)
            return False
        return True

    def _wait(self, until: float) -> socket.socket | None:
        """Return a socket that is connected by ``until``; None if none is, or if one has failed."""
        poll = select.poll()
        for descriptor in self._running:
            poll.register(descriptor, select.POLLOUT)
        left = until - monotonic()
        for descriptor, _ in poll.poll(None if left == math.inf else max(0, math.ceil(left * 1000))):
            sock = self._running.pop(descriptor)
            try:
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number not in (0, errno.EISCONN):
                    raise OSError(number, os.strerror(number))
                adjust(sock)
            except OSError as error:
                sock.close()
                self._errors.append(error)
            else:
                return sock
        return None
