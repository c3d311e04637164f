"""What only one master at a time may hold: the pidfile's lock, the control socket, the paths of listeners.

An heir has copies of them from its start, but owns them only once the old master has left. Runs in the master.
"""

from __future__ import annotations

from collections.abc import Mapping

from rpccluster.errors import StartError
from rpccluster.log import logger
from rpccluster.master.control import ControlServer, Method
from rpccluster.master.listeners import Listener, close_listeners
from rpccluster.master.loop import Loop
from rpccluster.master.pidfile import Pidfile

__all__ = ["Holdings"]


class Holdings:
    """The holdings of one master. ``listeners`` is the cluster's own list, which a reload may change."""

    def __init__(
        self,
        loop: Loop,
        pidfile: Pidfile | None,
        control: Listener | None,
        listeners: list[Listener],
        *,
        is_owner: bool,
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._server: ControlServer | None = None
        self._is_owner = is_owner
        self.pidfile = pidfile
        self.control = control

    def serve(self, methods: Mapping[str, Method]) -> None:
        """Listen on the control socket."""
        if self.control is not None:
            self._server = ControlServer(self._loop, self.control, methods)

    def turn(self) -> None:
        """Called after every turn of the loop."""
        if self._server is not None:
            self._server.turn()

    def take_over(self, pid: int, methods: Mapping[str, Method]) -> None:
        """The old master has left: all is ours."""
        self._is_owner = True
        self.sign(pid)
        self.serve(methods)

    def sign(self, pid: int) -> None:
        """Write ``pid`` into the pidfile: of the two masters of an upgrade, the one that stays."""
        if self.pidfile is not None:
            try:
                self.pidfile.write(pid)
            except StartError as error:  # too late for a fault: the lock is ours, and counts
                logger.error("%s", error)

    def leave(self) -> None:
        """A new master owns everything: close our copies, and touch nothing that it has."""
        self._is_owner = False
        self.close_listeners()
        if self._server is not None:
            self._server.stop_listening(is_last=False)
        if self.pidfile is not None:
            self.pidfile.close()
            self.pidfile = None

    def close_listeners(self) -> None:
        """Accept nothing any more."""
        close_listeners(self._listeners, is_last=self._is_owner)
        self._listeners.clear()

    def give_back(self) -> None:
        """Leave nothing behind: whoever starts after this finds everything free."""
        self.close_listeners()
        if self._is_owner:
            if self._server is not None:
                self._server.stop_listening(is_last=True)
            if self.pidfile is not None:
                self.pidfile.clear()
                self.pidfile.close()

    def close(self) -> None:
        """Close the control socket's clients, who have had their answers."""
        if self._server is not None:
            self._server.close()

    def close_in_child(self) -> None:
        """In a forked child: close the copies. The listeners are the worker's, too."""
        if self.pidfile is not None:
            self.pidfile.close()
        if self._server is not None:
            self._server.close_in_child()
        elif self.control is not None:
            self.control.socket.close()
