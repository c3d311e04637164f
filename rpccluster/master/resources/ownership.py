"""What only one master at a time may hold: the pidfile's lock, the control socket, the paths of listeners.

A new master has copies of the old one's from its start, but owns them only once it has taken over: then it also clears
away what its own configuration no longer names. Until then it owns only what it has opened itself. Runs in the master.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rpccluster.address import UnixAddress
from rpccluster.errors import StartError
from rpccluster.log import logger
from rpccluster.master.changes.inherited import Inheritance
from rpccluster.master.control.server import ControlServer, Method
from rpccluster.master.loop import Loop
from rpccluster.master.resources.listeners import Listener, close_listeners, open_control_listener
from rpccluster.master.resources.pidfile import Pidfile

__all__ = ["Holdings"]


@dataclass
class _Dropped:
    """What the old master had and the new one's configuration does not name."""

    listeners: list[Listener] = field(default_factory=list)
    pidfile: Pidfile | None = None


class Holdings:
    """The holdings of one master. ``listeners`` is the cluster's own list, which a reload may change."""

    def __init__(
        self,
        loop: Loop,
        pidfile: Pidfile | None,
        control: Listener | None,
        listeners: list[Listener],
        inheritance: Inheritance | None,
    ) -> None:
        """``inheritance`` is what was given by the old master, whether it is among the rest or not."""
        self._loop = loop
        self._listeners = listeners
        self._server: ControlServer | None = None
        self.pidfile = pidfile
        self.control = control
        self._theirs = inheritance  # until we take over
        self._has_left = False
        self._dropped = _Dropped()
        if inheritance is not None:
            self._dropped = _Dropped(
                [each for each in inheritance.sockets() if each is not control and each not in listeners],
                None if inheritance.pidfile is pidfile else inheritance.pidfile,
            )

    def serve(self, methods: Mapping[str, Method]) -> None:
        """Listen on the control socket."""
        if self.control is not None:
            self._server = ControlServer(self._loop, self.control, methods)

    def bind_control_again(self) -> None:
        """Make the control socket anew, whose path somebody has taken away. Raises `StartError`."""
        assert isinstance(self.control, Listener) and isinstance(self.control.wanted, UnixAddress)
        new = open_control_listener(self.control.wanted.path)
        if self._server is None:
            self.control.become(new)
        else:
            self._server.listen_anew(new)

    def turn(self) -> None:
        """Called after every turn of the loop."""
        if self._server is not None:
            self._server.turn()

    def take_over(self, pid: int, methods: Mapping[str, Method]) -> None:
        """The old master has left: all is ours."""
        self._theirs = None
        self.sign(pid)
        self.serve(methods)
        dropped, self._dropped = self._dropped, _Dropped()
        close_listeners(dropped.listeners, is_last=True)
        if dropped.pidfile is not None:
            dropped.pidfile.clear()
            dropped.pidfile.close()

    def sign(self, pid: int) -> None:
        """Write ``pid`` into the pidfile: of the two masters of an upgrade, the one that stays."""
        if self.pidfile is not None:
            try:
                self.pidfile.write(pid)
            except StartError as error:  # too late for a fault: the lock is ours, and counts
                logger.error("%s", error)

    def leave(self) -> None:
        """A new master owns everything: close our copies, and touch nothing that it has."""
        self._has_left = True
        close_listeners(self._listeners, is_last=False)
        self._listeners.clear()
        if self._server is not None:
            self._server.stop_listening(is_last=False)
        if self.pidfile is not None:
            self.pidfile.close()
            self.pidfile = None

    def close_listeners(self) -> None:
        """Accept nothing any more."""
        for listener in self._listeners:
            listener.close(is_last=self._is_ours(listener))
        self._listeners.clear()

    def _is_ours(self, listener: Listener) -> bool:
        return self._theirs is None or listener not in self._theirs.sockets()

    def give_back(self) -> None:
        """Leave nothing behind: whoever starts after this finds everything free."""
        if self._has_left:
            return
        self.close_listeners()
        if self._server is not None:
            self._server.stop_listening(is_last=True)
        elif self.control is not None and self._is_ours(self.control):  # never served: the upgrade has failed
            self.control.close(is_last=True)
        if self.pidfile is not None and (self._theirs is None or self.pidfile is not self._theirs.pidfile):
            self.pidfile.clear()
            self.pidfile.close()

    def close(self) -> None:
        """Close the control socket's clients, who have had their answers."""
        if self._server is not None:
            self._server.close()
